/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * How often hooks ran that no other counter tells apart: made of model/hook_table.py by
 * scripts/build-bpf.
 */
#ifndef PAGEOWNER_RAN_H
#define PAGEOWNER_RAN_H

#define RAN_COUNTERS \
	COUNT_RAN_MIGRATE, \
	COUNT_RAN_SPLIT_PAGE, \
	COUNT_RAN_SPLIT_FOLIO, \
	COUNT_RAN_CONTIG_AROUND, \
	COUNT_RAN_ISOLATED, \
	COUNT_RAN_EXACT, \
	COUNT_RAN_MIGRATE_START, \
	COUNT_RAN_MIGRATE_END

#endif
