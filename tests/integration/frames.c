/* Sends what stdin has as raw frames on eth0: each is two bytes of length, the high one first, and the frame. */

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
	unsigned char length[2], frame[65536];
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("eth0") };
	int fd = socket(AF_PACKET, SOCK_RAW, htons(3)), sent = 0;

	while (fread(length, 1, 2, stdin) == 2) {
		size_t size = (size_t)length[0] << 8 | length[1];
		if (fread(frame, 1, size, stdin) != size)
			return 2;
		if (sendto(fd, frame, size, 0, (struct sockaddr *)&at, sizeof(at)) != (ssize_t)size) {
			perror("sendto");
			return 1;
		}
		sent++;
	}
	printf("%d\n", sent);
	return 0;
}
