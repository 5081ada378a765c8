/* What the kernel tells of sends that are to copy nothing: when their memory may be used again, and whether it was copied after all. */
#ifndef NB_TOLD_H
#define NB_TOLD_H
#include "nb.h"
#include <errno.h>
#include <linux/errqueue.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif
#ifndef SO_EE_ORIGIN_ZEROCOPY
#define SO_EE_ORIGIN_ZEROCOPY 5
#endif
#ifndef SO_EE_CODE_ZEROCOPY_COPIED
#define SO_EE_CODE_ZEROCOPY_COPIED 1
#endif

struct nb_told {
    uint64_t sends, notified, copied; /* sends that are to be told of, those that were, and those told of as copied */
};

static inline void nb_wait_for(int file, short events, int ms)
{
    struct pollfd wait = {file, events, 0};
    poll(&wait, 1, ms);
}

static inline void nb_tell(struct nb_told *told, uint64_t sends, int copied)
{
    told->notified += sends;
    told->copied += copied ? sends : 0;
}

static inline ssize_t nb_zerocopy_send(int to, const void *from, uint64_t n, struct nb_told *told)
{
    const ssize_t sent = send(to, from, n, MSG_ZEROCOPY | MSG_DONTWAIT | MSG_NOSIGNAL);
    told->sends += sent > 0;
    return sent;
}

/* Notifications of MSG_ZEROCOPY, each of a range of sends: those that are there, and for so many ns those that are to come. */
static inline void nb_zerocopy_reap(int to, struct nb_told *told, uint64_t limit)
{
    for (uint64_t until = 0; told->notified < told->sends;) {
        union {
            struct cmsghdr align;
            uint8_t room[CMSG_SPACE(sizeof(struct sock_extended_err) + sizeof(struct sockaddr_storage))];
        } control;
        struct msghdr message = {.msg_control = &control, .msg_controllen = sizeof control};
        if (recvmsg(to, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            const uint64_t now = nb_now();
            until = until ? until : now + limit;
            if (now >= until)
                return;
            nb_wait_for(to, 0, 1);
            continue;
        }
        for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
            struct sock_extended_err said;
            if (each->cmsg_len < CMSG_LEN(sizeof said))
                continue;
            memcpy(&said, CMSG_DATA(each), sizeof said);
            if (said.ee_origin == SO_EE_ORIGIN_ZEROCOPY)
                nb_tell(told, said.ee_data - said.ee_info + 1, said.ee_code & SO_EE_CODE_ZEROCOPY_COPIED);
        }
    }
}
#endif
