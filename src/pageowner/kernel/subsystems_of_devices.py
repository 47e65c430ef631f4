"""What functions of virtual machines, of GPUs and of other devices allocate for.

In order of precedence; `pageowner.kernel.subsystems` has how they are read."""

from __future__ import annotations

from pageowner.kernel.subsystem_rule import Rule

__all__ = ["DEVICES", "GPU"]

GPU: tuple[Rule, ...] = (
    Rule("GPU (i915)", "i915_* __i915_* shmem_get_pages shmem_sg_alloc_table shmem_sg_free_table "
         "intel_gt_* intel_engine_* intel_context_*", source="drivers/gpu/drm/i915/",
         whole="i915"),
    Rule("GPU (xe)", "xe_bo_* xe_ttm_* xe_vm_* xe_gem_* xe_gt_* xe_exec_* xe_pt_*",
         source="drivers/gpu/drm/xe/", whole="xe"),
    Rule("GPU (amdgpu)", "amdgpu_* kfd_* dm_crtc_* dm_plane_* dm_helpers_* dm_dp_* dm_atomic_* "
         "dm_dmub_* dc_construct dc_create*", source="drivers/gpu/drm/amd/",
         whole="amdgpu amdkfd amdttm amdkcl"),
    Rule("GPU (radeon)", "radeon_*", source="drivers/gpu/drm/radeon/", whole="radeon"),
    Rule("GPU (nouveau)", "nouveau_* nvkm_* nvif_*", source="drivers/gpu/drm/nouveau/",
         whole="nouveau"),
    Rule("GPU (nvidia)", "", source="open-gpu-kernel-modules: kernel-open/",
         whole="nvidia nvidia_*"),
    Rule("GPU (KGSL)", "kgsl_* _kgsl_* adreno_*", source="Android: drivers/gpu/msm/",
         whole="msm_kgsl"),
    Rule("GPU (msm)", "msm_gem_* msm_gpu_* msm_ioctl_gem_*", source="drivers/gpu/drm/msm/",
         whole="msm msm_drm"),
    Rule("GPU (Mali)", "kbase_* kbasep_* panfrost_* panthor_* lima_*",
         source="Arm: drivers/gpu/arm/midgard/; drivers/gpu/drm/panfrost/, panthor/, lima/",
         whole="mali mali_* panfrost panthor lima"),
    Rule("GPU (PowerVR)", "pvr_* PVRSRV* OSAllocPages* PhysmemNewRamBackedPMR*",
         source="Imagination: services/server/; drivers/gpu/drm/imagination/",
         whole="pvrsrvkm powervr"),
    Rule("VideoCore memory (vc_sm_cma)", "vc_sm_*",
         source="Raspberry Pi: drivers/staging/vc04_services/vc-sm-cma/", whole="vc_sm_cma"),
    Rule("ION", "ion_* __ion_* _ion_*", source="drivers/staging/android/ion/, until 5.10",
         whole="ion ion_*"),
    Rule("dma-buf heaps", "dma_heap_* system_heap_* cma_heap_* carveout_heap_* secure_heap_* "
         "dmabuf_page_pool_*", source="drivers/dma-buf/",
         whole="system_heap cma_heap page_pool qcom_dma_heaps *_dmabuf_heap"),
)
"""Asked first: names such as dm_* and shmem_* are others' too."""

DEVICES: tuple[Rule, ...] = (
    # -- virtual machines -----------------------------------------------------------------------
    Rule("KVM", "kvm_* __kvm_* svm_* sev_* vmx_* tdp_mmu_* mmu_topup_* memslot_rmap_alloc "
         "alloc_loaded_vmcs alloc_vmcs_cpu",
         whole="kvm kvm_intel kvm_amd"),
    Rule("vhost", "vhost_*", source="drivers/vhost/",
         whole="vhost vhost_*"),
    Rule("Xen", "xen_* xenbus_* gnttab_*", source="drivers/xen/",
         whole="xen_*"),
    Rule("Hyper-V", "vmbus_* hv_*", source="drivers/hv/",
         whole="hv_* hyperv_*"),
    Rule("VFIO", "vfio_* iommufd_*", source="drivers/vfio/, drivers/iommu/iommufd/",
         whole="vfio vfio_* iommufd"),
    Rule("virtio", "vring_* virtqueue_* virtio_* vp_* setup_vq __vring_*",
         whole="virtio virtio_ring virtio_pci* virtio_mmio virtio_console virtio_rng"),

    # -- devices --------------------------------------------------------------------------------
    Rule("DMA buffers", "dma_alloc_* dma_direct_alloc* __dma_direct_* iommu_dma_* "
         "__iommu_dma_* swiotlb_* dmam_* dma_pool_* "
         "atomic_pool_*", source="kernel/dma/"),
    Rule("GPU (DRM)", "drm_* __drm_*", source="drivers/gpu/drm/", modules="drm drm_*",
         whole="drm_* gpu_sched virtio_gpu vmwgfx qxl ast mgag200 bochs simpledrm vgem vkms vc4 "
         "v3d etnaviv"),
    Rule("IOMMU", "iommu_* __iommu_* intel_iommu_* amd_iommu_* iova_* alloc_iova* arm_smmu_* "
         "alloc_pgtable_page dmar_*", source="drivers/iommu/"),
    Rule("RDMA", "ib_* rdma_* __ib_*", source="drivers/infiniband/core/",
         whole="ib_* rdma_* iw_cm"),
    Rule("USB", "usb_* __usb_* xhci_* hcd_buffer_alloc", source="drivers/usb/",
         whole="usbcore xhci_hcd xhci_pci ehci_hcd ehci_pci uhci_hcd ohci_hcd usb_storage uas "
         "usbhid"),
    Rule("sound", "snd_* __snd_*", source="sound/core/",
         whole="snd snd_* soundcore"),
    Rule("video capture", "vb2_* v4l2_*", source="drivers/media/",
         whole="videodev videobuf2_* v4l2_* mc uvcvideo"),
    Rule("wireless", "ieee80211_* cfg80211_*", source="net/mac80211/, net/wireless/",
         whole="mac80211 cfg80211"),
    Rule("Bluetooth", "hci_* l2cap_*", source="net/bluetooth/",
         whole="bluetooth btusb rfcomm bnep"),
    Rule("Android binder", "binder_*", source="drivers/android/",
         whole="binder_linux rust_binder_linux"),
    Rule("terminals", "tty_* __tty_* pty_* n_tty_* uart_* serial8250_* serial_* con_insert_* "
         "vc_allocate vc_alloc* vc_do_resize vc_resize vc_uniscr_* vc_cons_* vcs_* vty_* ptmx_* "
         "devpts_* console_*"),
    Rule("input devices", "input_* psmouse_* serio_* evdev_*",
         whole="evdev psmouse serio_raw libps2 joydev mousedev"),
    Rule("ACPI", "acpi_* pnpacpi_* pnp_* __pnp_*",
         whole="acpi_*"),
    Rule("PCI", "pci_* __pci_* pcie_* pcim_*"),
    Rule("firmware loading", "request_firmware* _request_firmware fw_get_filesystem_firmware",
         source="drivers/base/firmware_loader/main.c"),
    Rule("crypto", "crypto_* __crypto_* alg_* skcipher_* aead_* shash_* ahash_* acomp_* scomp_* "
         "x509_* public_key_* mpi_* drbg_*",
         whole="af_alg algif_* cryptd crypto_simd crypto_engine"),
    Rule("security modules", "security_* selinux_* apparmor_* aa_* smack_* landlock_* tomoyo_* "
         "lsm_* avc_* ima_* integrity_* sidtab_* policydb_* ebitmap_*"),
    Rule("audit", "audit_* __audit_*", source="kernel/audit.c"),
    Rule("devices", "device_* bus_* driver_* class_create* class_register* __class_* "
         "class_compat_* "
         "class_dev_* class_interface_* cdev_* __register_chrdev* register_chrdev* "
         "kobj_map* misc_register platform_* dev_set_name really_probe memory_dev_init "
         "add_memory_block register_cpu cpu_device_create cacheinfo_* cpu_dev_init node_dev_init "
         "register_node* rtc_* devm_* __devm_* subsys_* fwnode_* software_node_* devtmpfs_* "
         "component_* regmap_* clk_* i2c_* spi_* thermal_*",
         whole="i2c_core i2c_dev i2c_algo_bit regmap_* spi_*"),
)
"""Virtual machines and devices."""
