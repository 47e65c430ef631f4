/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Which memory cgroup a page is charged to, also one that was removed, which /proc/kpagecgroup does
 * not name.
 */
#ifndef PAGEOWNER_PAGE_USERS_GROUPS_BPF_H
#define PAGEOWNER_PAGE_USERS_GROUPS_BPF_H

#include "bpf_abi.h"
#include "page_users.h"
#include "page_users_types.bpf.h"

struct { SHARED_ARRAY(struct group, GROUPS); } groups SEC(".maps");

struct group_path {
	struct group *group;
	struct kernfs_node *at;
};

/* One more name of a cgroup's path; the root has none. */
static long add_group_name(u32 i, void *context)
{
	struct group_path *path = context;
	struct group *group = path->group;
	struct kernfs_node *parent = NULL;
	const char *name = NULL;
	u32 at;
	long length;

	(void)i;
	if (!group)
		return 1;
	at = group->length;
	if (core_field_exists(((struct kernfs_node___rcu *)0)->__parent))
		READ(parent, (struct kernfs_node___rcu *)path->at, __parent);
	else if (core_field_exists(((struct kernfs_node___parent *)0)->parent))
		READ(parent, (struct kernfs_node___parent *)path->at, parent);
	if (!parent || at > sizeof(group->path) - NAME_MAX - 1 || READ(name, path->at, name))
		return 1;
	length = bpf_probe_read_kernel_str(group->path + at, NAME_MAX, name);
	if (length < 1 || length > NAME_MAX)
		return 1;
	at += length - 1;
	if (at < sizeof(group->path))
		group->path[at] = '/';
	group->length = at + 1;
	path->at = parent;
	return 0;
}

static long find_group(u32 i, void *unused)
{
	struct group *group = bpf_map_lookup_elem(&groups, &i);
	struct group_path path = {.group = group};
	struct cgroup_subsys *subsystem = NULL;
	struct mem_cgroup *memcg;
	struct cgroup *cgroup = NULL;
	const char *name = NULL;
	u64 read = 0;
	u32 flags = 0;

	(void)unused;
	if (!group)
		return 1;
	memcg = (void *)group->group;
	group->state = group->length = 0;
	/* Of the memory controller, or it is something else. */
	if (READ(subsystem, memcg, css.ss) || READ(name, subsystem, name) ||
	    bpf_probe_read_kernel_str(&read, sizeof(read), name) != sizeof("memory") ||
	    read != 0x79726f6d656dULL ||
	    READ(flags, memcg, css.flags) || READ(cgroup, memcg, css.cgroup) ||
	    READ(path.at, cgroup, kn) || !path.at || READ(group->id, path.at, id))
		return 0;
	bpf_loop(GROUP_DEPTH, add_group_name, &path, 0);
	group->state = flags & CSS_ONLINE ? 1 : 2;
	return 0;
}

SEC("raw_tp")
int find_groups(u64 *context)
{
	return bpf_loop(context[0] > GROUPS ? GROUPS : context[0], find_group, NULL, 0);
}

#endif
