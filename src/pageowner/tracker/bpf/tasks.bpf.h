/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The task depot: who, as a number. Entries that no live record names are given to new tasks; a
 * reference, taken before the entry is compared, keeps it from changing.
 */
#ifndef PAGEOWNER_TASKS_BPF_H
#define PAGEOWNER_TASKS_BPF_H

#include "shared.bpf.h"

#define TASK_TAKING (1U << 31)
#define TASK_SLOT_MASK ((1U << TASK_SLOT_BITS) - 1)

INLINE struct task *task_at(u32 id)
{
	u32 slot = id & TASK_SLOT_MASK;

	return bpf_map_lookup_elem(&tasks, &slot);
}

/* Whether a record's task is the one that runs. */
INLINE int is_current(u32 id)
{
	struct task *task = id ? task_at(id) : NULL;

	return task && task->pid == (u32)bpf_get_current_pid_tgid();
}

/* Give back n references of a record's task. */
INLINE void drop_task(u32 id, u32 n)
{
	struct task *task = id ? task_at(id) : NULL;

	if (task)
		__sync_fetch_and_add(&task->refs, -n);
}

/* Take n more references where one is held already: the slot cannot go to another. */
INLINE void hold_more(u32 id, u32 n)
{
	struct task *task = id && n ? task_at(id) : NULL;

	if (task)
		__sync_fetch_and_add(&task->refs, n);
}

INLINE int same_task(struct task *task, struct task_key *key)
{
	u64 *comm = (u64 *)task->comm;

	return *(u64 *)&task->tgid == (key->pid_tgid >> 32 | key->pid_tgid << 32) &&
	       task->cgroup_id == key->cgroup_id && comm[0] == key->comm[0] &&
	       comm[1] == key->comm[1];
}

/* Take n references to a slot that looked right, then see whether it is: with a reference held
 * it can no longer change. 0 if it was not. */
INLINE u32 hold_task(struct task *task, struct task_key *key, u32 n)
{
	u32 before = __sync_fetch_and_add(&task->refs, n);
	u32 id = *(volatile u32 *)&task->id;

	if (!(before & TASK_TAKING) && id && same_task(task, key))
		return id;
	__sync_fetch_and_add(&task->refs, -n);
	return 0;
}

INLINE u32 task_slot(u64 hash, u32 way)
{
	/* Two buckets of half the ways each: twice the choice makes full buckets rare. */
	u32 bucket = way < WAYS / 2 ? hash : hash >> 32;

	return ((bucket & ~(u32)(WAYS / 2 - 1)) | (way & (WAYS / 2 - 1))) & task_mask;
}

/* The id of scratch->key with one reference, from the table or put there; 0: the table is full
 * of tasks that own pages. */
GLOBAL u32 find_task(u32 hook)
{
	struct scratch *scratch = scratch_of(hook);
	struct task_key *key;
	struct task *task;
	u32 way, id, slot;
	u64 hash;

	if (!scratch)
		return 0;
	key = &scratch->key;
	hash = hash_step(hash_step(hash_step(hash_step(0, key->pid_tgid), key->cgroup_id),
				   key->comm[0]), key->comm[1]);
	for (way = 0; way < WAYS; way++) {
		task = task_at(task_slot(hash, way));
		if (!task || !same_task(task, key))
			continue;
		id = hold_task(task, key, 1);
		if (id)
			return id;
	}
	for (way = 0; way < WAYS; way++) {
		slot = task_slot(hash, way);
		task = task_at(slot);
		if (!slot || !task || *(volatile u32 *)&task->refs)
			continue;
		if (__sync_val_compare_and_swap(&task->refs, 0, TASK_TAKING))
			continue;
		id = task->id + (1U << TASK_SLOT_BITS);
		if (!(id >> TASK_SLOT_BITS)) /* generation 0 is left out: no id is 0 */
			id = 1U << TASK_SLOT_BITS;
		id = (id & ~TASK_SLOT_MASK) | slot;
		*(volatile u32 *)&task->id = 0;
		in_order();
		*(u64 *)&task->tgid = key->pid_tgid >> 32 | key->pid_tgid << 32;
		task->cgroup_id = key->cgroup_id;
		((u64 *)task->comm)[0] = key->comm[0];
		((u64 *)task->comm)[1] = key->comm[1];
		in_order();
		*(volatile u32 *)&task->id = id;
		/* Others may have added and taken back their reference meanwhile: add, not set. */
		__sync_fetch_and_add(&task->refs, 1 - TASK_TAKING);
		count(COUNT_TASKS_TAKEN, 1);
		return id;
	}
	count(COUNT_TASKS_FULL, 1);
	return 0;
}

/* That of cgroup v2, read in place: as bpf_get_current_cgroup_id(), without the call. */
INLINE u64 current_cgroup_id(struct task_struct *current)
{
	struct css_set *set;
	struct cgroup *group;
	struct kernfs_node *node;

	if (!core_field_exists(current->cgroups))
		return 0;
	set = current->cgroups;
	group = set ? set->dfl_cgrp : NULL;
	node = group ? group->kn : NULL;
	return node ? node->id : 0;
}

/* References are taken and given back so many at a time, by programs that nothing else shares their
 * place with: few events then touch the task's entry at all, which all CPUs share. */
#define HELD_AT_ONCE 64
#define LEFT_AT_ONCE 1024

/* Give back a reference of a record's task, later. */
INLINE void leave_task(struct hot *hot, u32 id)
{
	if (!id)
		return;
	if (hot->left_id == id && hot->left < LEFT_AT_ONCE) {
		hot->left++;
		return;
	}
	if (hot->left)
		drop_task(hot->left_id, hot->left);
	hot->left_id = id;
	hot->left = 1;
}

/* The id of the current task, with one reference. */
INLINE u32 task_id_of(struct hot *hot, struct task_struct *current, u32 hook)
{
	u64 pid_tgid = (u64)(u32)current->tgid << 32 | (u32)current->pid;
	u32 id, n = hook == HOOK_ALLOC ? HELD_AT_ONCE : 1;
	u64 comm[COMM_LEN / sizeof(u64)], cgroup_id;
	struct scratch *scratch;
	struct task_key *key;
	struct task *task;

	cgroup_id = current_cgroup_id(current);
	comm[0] = *(volatile u64 *)&current->comm[0];
	comm[1] = *(volatile u64 *)&current->comm[8];
	if (pid_tgid == hot->pid_tgid && cgroup_id == hot->cgroup_id &&
	    comm[0] == hot->raw_comm[0] && comm[1] == hot->raw_comm[1]) {
		/* With a reference in hand it is still the same. */
		if (hot->held) {
			hot->held--;
			return hot->task_id;
		}
		task = hot->task_id ? task_at(hot->task_id) : NULL;
		id = task ? hold_task(task, (struct task_key *)&hot->pid_tgid, n) : 0;
		if (id) {
			hot->task_id = id; /* the same task's, of a later generation perhaps */
			hot->held = n - 1;
			return id;
		}
	}
	scratch = scratch_of(hook);
	if (!scratch)
		return 0;
	if (hot->held)
		drop_task(hot->task_id, hot->held);
	hot->held = 0;
	key = &scratch->key;
	key->pid_tgid = pid_tgid;
	key->cgroup_id = cgroup_id;
	/* The helper leaves what is behind the name as it was (strscpy, seen on 6.1). */
	key->comm[0] = 0;
	key->comm[1] = 0;
	bpf_get_current_comm(key->comm, COMM_LEN);
	id = find_task(hook);
	hot->pid_tgid = pid_tgid;
	hot->cgroup_id = cgroup_id;
	hot->comm[0] = key->comm[0];
	hot->comm[1] = key->comm[1];
	hot->raw_comm[0] = comm[0];
	hot->raw_comm[1] = comm[1];
	hot->task_id = id;
	return id;
}

INLINE u32 task_id(u32 hook)
{
	struct cpu *cpu = this_cpu();

	return cpu ? task_id_of(&cpu->hot[hook], bpf_get_current_task_btf(), hook) : 0;
}

#endif
