"""What functions of file systems and of the block layer allocate for.

In order of precedence; `pageowner.kernel.subsystems` has how they are read."""

from __future__ import annotations

from pageowner.kernel.subsystem_rule import Rule

__all__ = ["FILES", "FILE_SYSTEMS"]

FILE_SYSTEMS = """
    9p affs afs autofs autofs4 bcachefs befs btrfs ceph cifs coda cramfs ecryptfs erofs exfat ext2
    ext4 f2fs fat fuse gfs2 hfs hfsplus hpfs isofs jffs2 jfs minix nfs nilfs2 ntfs ntfs3 ocfs2 omfs
    orangefs overlay qnx4 qnx6 reiserfs romfs squashfs sunrpc ubifs udf ufs vboxsf xfs zonefs"""
"""Modules that have an inode of their own and a function to allocate it (fs/*/super.c, inode.c)."""

FILES: tuple[Rule, ...] = (
    # -- files ----------------------------------------------------------------------------------
    Rule("dentries", "__d_alloc d_alloc d_alloc_* d_make_root"),
    Rule("sysfs and kernfs", "__kernfs_* kernfs_* sysfs_* kobject_* kset_* "
         "internal_create_group* param_sysfs_* add_sysfs_param"),
    Rule("{} inodes", "*_alloc_inode", "slab",
         modules=FILE_SYSTEMS),
    Rule("inodes", "alloc_inode new_inode new_inode_pseudo iget_locked iget5_locked", "slab"),
    Rule("path names", "getname_flags getname getname_kernel do_getname sys_getcwd "
         "audit_alloc_name", source="fs/namei.c"),
    Rule("mounts", "alloc_super alloc_vfsmnt alloc_fs_context sget_fc sget vfs_create_mount "
         "path_mount do_mount mnt_init copy_mnt_ns alloc_mnt_ns attach_recursive_mnt clone_mnt "
         "copy_tree sys_mount sys_fsopen sys_fsconfig vfs_parse_fs_* get_mountpoint copy_mount_* "
         "super_setup_bdi prealloc_shrinker shrinker_alloc"),
    Rule("sysctl", "__register_sysctl_* register_sysctl* insert_header proc_sys_*"),
    Rule("debugfs", "debugfs_* __debugfs_* full_proxy_* open_proxy_open"),
    Rule("proc", "proc_* __proc_* _proc_mkdir environ_* mem_open mem_rw pagemap_* smaps_* "
         "do_task_stat meminfo_proc_* kpage*_read kallsyms_open mounts_open_common "
         "get_mm_cmdline register_irq_proc"),
    Rule("ext4", "ext4_* __ext4_* jbd2_* __jbd2_* mb_cache_* start_this_handle journal_*",
         whole="ext4 jbd2 mbcache"),
    Rule("XFS", "xfs_* xlog_* xfsaild*",
         whole="xfs"),
    Rule("Btrfs", "btrfs_* __btrfs_* alloc_extent_buffer __alloc_extent_buffer "
         "alloc_extent_state* alloc_extent_map read_tree_block set_extent_bit __set_extent_bit "
         "alloc_eb_folio_array start_transaction alloc_workspace_manager",
         whole="btrfs"),
    Rule("overlayfs", "ovl_*", source="fs/overlayfs/",
         whole="overlay"),
    Rule("9p", "v9fs_* p9_*",
         whole="9p 9pnet 9pnet_*"),
    Rule("netfs", "netfs_* fscache_* cachefiles_*",
         whole="netfs fscache cachefiles"),
    Rule("FUSE", "fuse_* __fuse_* cuse_* virtio_fs_*",
         whole="fuse cuse virtiofs"),
    Rule("NFS", "nfs_* nfs2_* nfs3_* nfs4_* nfsd_* nfsd4_* nlm_* pnfs_* __nfs_* __nfs4_*",
         source="fs/nfs/, fs/nfsd/, fs/lockd/",
         whole="nfs nfsv2 nfsv3 nfsv4 nfsd lockd grace nfs_acl nfs_layout_* blocklayoutdriver"),
    Rule("SUN RPC", "rpc_* svc_* xprt_* xs_tcp_* xs_udp_* gss_*", source="net/sunrpc/",
         whole="sunrpc rpcrdma auth_rpcgss rpcsec_gss_*"),
    Rule("SMB", "cifs_* smb2_* SMB2_* smb3_* ksmbd_*", source="fs/smb/",
         whole="cifs ksmbd"),
    Rule("Ceph", "ceph_* rbd_* __ceph_*", source="fs/ceph/, net/ceph/",
         whole="ceph libceph rbd"),
    Rule("F2FS", "f2fs_* __f2fs_*", source="fs/f2fs/",
         whole="f2fs"),
    Rule("squashfs", "squashfs_*",
         whole="squashfs"),
    Rule("EROFS", "erofs_* z_erofs_*",
         whole="erofs"),
    Rule("FAT", "fat_* vfat_* exfat_*", source="fs/fat/, fs/exfat/",
         whole="fat vfat msdos exfat"),
    Rule("NTFS", "ntfs_*", source="fs/ntfs3/",
         whole="ntfs ntfs3"),
    Rule("GFS2", "gfs2_* dlm_*", source="fs/gfs2/, fs/dlm/",
         whole="gfs2 dlm"),
    Rule("ISO 9660 and UDF", "isofs_* udf_*", source="fs/isofs/, fs/udf/",
         whole="isofs udf"),
    Rule("autofs", "autofs_*", source="fs/autofs/",
         whole="autofs4 autofs"),
    Rule("quota", "dquot_* dqget", source="fs/quota/dquot.c",
         whole="quota_v1 quota_v2 quota_tree"),
    Rule("file encryption", "fscrypt_* fsverity_* ecryptfs_*", source="fs/crypto/, fs/verity/",
         whole="ecryptfs"),
    Rule("writeback", "bdi_* wb_* cgwb_* __writeback_* writeback_*", source="fs/fs-writeback.c"),
    Rule("direct I/O", "iomap_dio_* dio_* do_direct_IO __blockdev_direct_IO "
         "__iomap_dio_rw do_blockdev_direct_IO"),
    Rule("iomap", "iomap_* ifs_alloc"),
    Rule("Lustre", "", source="lustre-release: lustre/, lnet/",
         whole="obdclass ptlrpc mdt mdc mdd osc ost lov lmv llite lustre lnet ksocklnd ko2iblnd "
         "libcfs ofd osp lod osd_ldiskfs osd_zfs ldiskfs mgs mgc fid fld lquota lfsck"),
    Rule("ZFS", "", source="openzfs: module/",
         whole="zfs spl icp znvpair zavl zcommon zunicode zlua zzstd"),

    # -- block layer ----------------------------------------------------------------------------
    Rule("loop devices", "loop_* lo_rw_aio",
         whole="loop"),
    Rule("device mapper", "dm_* __dm_* __bufio_* alloc_buffer_data verity_*",
         source="drivers/md/dm.c, dm-bufio.c, dm-verity-target.c",
         whole="dm_*"),
    Rule("software RAID", "md_alloc* md_run md_start md_import_device md_bitmap_* md_submit_* "
         "md_handle_request md_register_thread md_ioctl md_seq_* md_account_bio md_probe raid0_* "
         "raid1_* raid5_* raid10_* grow_one_stripe", source="drivers/md/",
         whole="md_mod raid0 raid1 raid10 raid456"),
    Rule("NVMe", "nvme_* nvmet_*", source="drivers/nvme/",
         whole="nvme nvme_* nvmet nvmet_*"),
    Rule("SCSI", "scsi_* __scsi_* sg_build_* ata_* iscsi_*", source="drivers/scsi/, drivers/ata/",
         whole="scsi_mod scsi_transport_* sd_mod sr_mod sg libata libahci ahci libsas libiscsi "
         "libiscsi_* iscsi_* target_core_*"),
    Rule("block layer", "bio_* __bio_* bvec_* biovec_* bioset_* blk_* __blk_* blkdev_* elevator_* "
         "dd_init_sched sbitmap_* submit_bio* bdev_* __alloc_disk_node __submit_bio* "
         "alloc_disk* device_add_disk add_disk* add_partition* read_part_sector mpage_* init_bio "
         "sg_pool_init rq_qos_* bfq_* kyber_* virtblk_* nbd_* __register_blkdev submit_bh*",
         whole="virtio_blk nbd bfq kyber_iosched mq_deadline null_blk brd"),
)
"""Files and the devices that they lie on."""
