// SPDX-License-Identifier: MIT OR GPL-2.0
/* Programs that do nothing where the tracker's run: what running them costs. */
#define SEC(name) __attribute__((section(name), used))

char LICENSE[] SEC("license") = "Dual MIT/GPL";

SEC("raw_tp/mm_page_alloc")
int on_alloc(void *context)
{
	(void)context;
	return 0;
}

SEC("raw_tp/mm_page_alloc")
int on_nested_alloc(void *context)
{
	(void)context;
	return 0;
}

SEC("raw_tp/mm_page_free")
int on_free(void *context)
{
	(void)context;
	return 0;
}

SEC("raw_tp/mm_page_free")
int on_nested_free(void *context)
{
	(void)context;
	return 0;
}
