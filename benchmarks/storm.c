/*
 * UDP packets of 64 bytes as fast as they go: storm SECONDS ADDRESS SENDERS_NETNS RECEIVERS_NETNS,
 * the latter paths of network namespaces, or - for this one. Prints packets sent and received a
 * second. Both ends stay in their socket calls: packets are made and thrown away in the kernel, much
 * of it in software interrupts.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 64, BYTES = 64, PORT = 49152 };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int udp(const char *netns)
{
	int place, end;

	if (strcmp(netns, "-")) {
		place = open(netns, O_RDONLY);
		if (place < 0 || setns(place, CLONE_NEWNET)) {
			perror(netns);
			exit(1);
		}
	}
	end = socket(AF_INET, SOCK_DGRAM, 0);
	if (end < 0) {
		perror("socket");
		exit(1);
	}
	return end;
}

static long storm(int end, double until, int sending)
{
	static char bytes[AT_ONCE][BYTES];
	struct mmsghdr messages[AT_ONCE];
	struct iovec parts[AT_ONCE];
	long packets = 0;
	int i, n;

	memset(messages, 0, sizeof(messages));
	for (i = 0; i < AT_ONCE; i++) {
		parts[i] = (struct iovec){bytes[i], BYTES};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	while (now() < until) {
		n = sending ? sendmmsg(end, messages, AT_ONCE, 0)
			    : recvmmsg(end, messages, AT_ONCE, MSG_WAITFORONE, NULL);
		if (n > 0)
			packets += n;
	}
	return packets;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	struct timeval wait = {.tv_usec = 50000};
	double seconds, until;
	int answer[2], receiver;
	long received = 0, sent;
	char ready;

	if (argc != 5 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1 || pipe(answer))
		return 2;
	seconds = atof(argv[1]);
	until = now() + seconds;
	if (!fork()) {
		receiver = udp(argv[4]);
		setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
		if (bind(receiver, (struct sockaddr *)&address, sizeof(address))) {
			perror("bind");
			return 1;
		}
		if (write(answer[1], "", 1) != 1)
			return 1;
		received = storm(receiver, until, 0);
		return write(answer[1], &received, sizeof(received)) != sizeof(received);
	}
	close(answer[1]);
	receiver = udp(argv[3]);
	if (read(answer[0], &ready, 1) != 1 ||
	    connect(receiver, (struct sockaddr *)&address, sizeof(address)))
		return 1;
	sent = storm(receiver, until, 1);
	if (read(answer[0], &received, sizeof(received)) != sizeof(received))
		return 1;
	wait3(NULL, 0, NULL);
	printf("%.0f %.0f\n", sent / seconds, received / seconds);
	return 0;
}
