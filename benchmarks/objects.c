/*
 * The price of objects: system calls that do little but allocate them and free them. For each line of its
 * input that holds a number it does each loop that often in passes of 2,000, and prints ns for one
 * iteration of the fastest pass: open and close, socketpair and both closes, epoll_ctl add and delete.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EACH = 2000, LOOPS = 3 };

static int watcher, watched;

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void once(int loop)
{
	struct epoll_event event = {.events = EPOLLIN};
	int pair[2];

	switch (loop) {
	case 0:
		pair[0] = open("/dev/null", O_RDONLY);
		if (pair[0] < 0)
			exit(1);
		close(pair[0]);
		break;
	case 1:
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
			exit(1);
		close(pair[0]);
		close(pair[1]);
		break;
	default:
		if (epoll_ctl(watcher, EPOLL_CTL_ADD, watched, &event) ||
		    epoll_ctl(watcher, EPOLL_CTL_DEL, watched, NULL))
			exit(1);
	}
}

int main(void)
{
	int passes;

	watcher = epoll_create1(0);
	watched = eventfd(0, 0);
	while (scanf("%d", &passes) == 1) {
		for (int loop = 0; loop < LOOPS; loop++) {
			double best = 1e99;

			for (int pass = 0; pass < passes; pass++) {
				double start = seconds(), took;

				for (int i = 0; i < EACH; i++)
					once(loop);
				took = (seconds() - start) * 1e9 / EACH;
				if (took < best)
					best = took;
			}
			printf("%.1f ", best);
		}
		puts("");
		fflush(stdout);
	}
	return 0;
}
