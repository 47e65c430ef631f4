/*
 * The price of a page: map 64 MiB, touch each page, unmap. For each line of its input that holds a
 * number it does so that often, and prints ns for one page (one fault, one allocation and one free)
 * of the fastest.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static const size_t SIZE = 64UL << 20, PAGE = 4096;

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static double pass(void)
{
	double start = seconds();
	char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		exit(1);
	madvise(memory, SIZE, MADV_NOHUGEPAGE);
	for (size_t at = 0; at < SIZE; at += PAGE)
		memory[at] = 1;
	munmap(memory, SIZE);
	return (seconds() - start) * 1e9 / (SIZE / PAGE);
}

int main(void)
{
	int passes;

	while (scanf("%d", &passes) == 1) {
		double best = pass();

		while (--passes > 0) {
			double one = pass();

			best = one < best ? one : best;
		}
		printf("%.1f\n", best);
		fflush(stdout);
	}
	return 0;
}
