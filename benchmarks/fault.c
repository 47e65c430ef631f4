/*
 * The price of a page: map 64 MiB, touch each page, unmap. Each round prints ns for one page, that
 * is one fault, one allocation and one free: fault [ROUNDS]
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

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 20;

	for (int round = 0; round < rounds; round++) {
		double start = seconds();
		char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			return 1;
		madvise(memory, SIZE, MADV_NOHUGEPAGE);
		for (size_t at = 0; at < SIZE; at += PAGE)
			memory[at] = 1;
		munmap(memory, SIZE);
		printf("%.1f\n", (seconds() - start) * 1e9 / (SIZE / PAGE));
	}
	return 0;
}
