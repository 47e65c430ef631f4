// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The tracker, and a writer of records from which it can be told whether what was read was ever
 * written: all fields follow from a serial number, which stands where the time does. It writes with
 * what the hooks write with (store.bpf.h).
 */
#include "../../src/pageowner/tracker/bpf/page_owner.bpf.c"

/* Between two writes a record is given up at times, as by a free or by a larger block. */
GLOBAL int rewrite_one(u64 pfn, u64 serial)
{
	struct record *record = record_at(pfn);
	u64 hash = hash_step(0, serial);
	struct record fresh = {};
	u32 word;

	if (!record)
		return 0;
	if (serial % 5 == 0) {
		word = RECORD_WORD(record);
		if (is_block(word))
			forget(record, word);
		return 0;
	}
	fill(&fresh, serial, hash, hash >> 32, hash >> 16);
	put(record, &fresh, record_word(hash >> 8 & 7, STATE_OWNED, hash >> 24));
	return 0;
}

/* The context[1] (a power of two) records from page frame context[0] on in turn, context[2] writes in
 * all (1,024 at most), with every context[4]th serial number from context[3] on. */
SEC("raw_tp")
int rewrite(u64 *context)
{
	u64 pfn = context[0], records = context[1], writes = context[2], serial = context[3];
	u64 step = context[4], at = serial % 61;
	u32 i;

	for (i = 0; i < 1024; i++) {
		if (i >= writes)
			break;
		rewrite_one(pfn + ((at + i) & (records - 1)), serial + i * step);
	}
	return 0;
}
