// SPDX-License-Identifier: Apache-2.0

// Reading datagrams: with recvmmsg and UDP_GRO many in one call, elsewhere one by one.

#include "tern_system.h"
#include "tern_receive.h"
#include "tern_address.h"

#include <stdalign.h>
#include <stdlib.h>

#if !defined(__linux__)
struct mmsghdr {
    struct msghdr msg_hdr;
    unsigned int msg_len;
};
#endif

/// Room for the local address, the ECN mark and the segment size.
#define CONTROL_SPACE (CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(int)))

typedef struct slot {
    struct sockaddr_storage name;
    struct iovec vector;
    alignas(struct cmsghdr) unsigned char control[CONTROL_SPACE];
} slot;

struct tern_receiver {
    size_t slots;
    /// Headers that the last call wrote to: those the next has to set again.
    size_t used;
    struct mmsghdr *headers;
    slot *places;
    tern_datagrams *datagrams;
    unsigned char *memory;
};

tern_receiver *tern_receiver_make(size_t slots) {
    tern_receiver *receiver = calloc(1, sizeof(*receiver));
    if (receiver == NULL) { return NULL; }
    receiver->slots = slots;
    receiver->used = slots;
    receiver->headers = calloc(slots, sizeof(*receiver->headers));
    receiver->places = calloc(slots, sizeof(*receiver->places));
    receiver->datagrams = calloc(slots, sizeof(*receiver->datagrams));
    // Address space: there is memory behind it where the system has written to it.
    receiver->memory = malloc(slots * TERN_LONGEST_RUN);
    if (!receiver->headers || !receiver->places || !receiver->datagrams || !receiver->memory) {
        tern_receiver_free(receiver);
        return NULL;
    }
    for (size_t i = 0; i < slots; i++) {
        slot *place = &receiver->places[i];
        place->vector.iov_base = receiver->memory + i * TERN_LONGEST_RUN;
        place->vector.iov_len = TERN_LONGEST_RUN;
        struct msghdr *header = &receiver->headers[i].msg_hdr;
        header->msg_name = &place->name;
        header->msg_iov = &place->vector;
        header->msg_iovlen = 1;
        header->msg_control = place->control;
    }
    return receiver;
}

void tern_receiver_free(tern_receiver *receiver) {
    if (receiver == NULL) { return; }
    free(receiver->headers);
    free(receiver->places);
    free(receiver->datagrams);
    free(receiver->memory);
    free(receiver);
}

static void read_control(struct msghdr *header, tern_datagrams *datagrams) {
    for (struct cmsghdr *entry = CMSG_FIRSTHDR(header); entry != NULL; entry = CMSG_NXTHDR(header, entry)) {
        if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(entry), sizeof(info));
            datagrams->local.low = ntohl(info.ipi_addr.s_addr);
            datagrams->interface_index = (uint32_t)info.ipi_ifindex;
            datagrams->local.family = 4;
        } else if (entry->cmsg_level == IPPROTO_IPV6 && entry->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(entry), sizeof(info));
            tern_address_set_in6(&datagrams->local, &info.ipi6_addr);
            datagrams->interface_index = (uint32_t)info.ipi6_ifindex;
            datagrams->local.family = 6;
        } else if (entry->cmsg_level == IPPROTO_IPV6 && entry->cmsg_type == IPV6_TCLASS) {
            int mark = 0;
            memcpy(&mark, CMSG_DATA(entry), sizeof(mark));
            datagrams->ecn = (uint8_t)(mark & 3);
#if defined(__linux__)
        } else if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_TOS) {
            datagrams->ecn = *(const unsigned char *)CMSG_DATA(entry) & 3;
        } else if (entry->cmsg_level == SOL_UDP && entry->cmsg_type == UDP_GRO) {
            int size = 0;
            memcpy(&size, CMSG_DATA(entry), sizeof(size));
            if (size > 0) { datagrams->segment_size = (size_t)size; }
#else
        } else if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_RECVTOS) {
            datagrams->ecn = *(const unsigned char *)CMSG_DATA(entry) & 3;
#endif
        }
    }
}

/// Returns how many headers were filled, or -1 and the `errno`.
static int receive(int descriptor, struct mmsghdr *headers, size_t limit) {
#if defined(__linux__)
    return recvmmsg(descriptor, headers, (unsigned int)limit, MSG_DONTWAIT, NULL);
#else
    size_t count = 0;
    for (; count < limit; count++) {
        ssize_t length = recvmsg(descriptor, &headers[count].msg_hdr, MSG_DONTWAIT);
        if (length < 0) { return count > 0 ? (int)count : -1; }
        headers[count].msg_len = (unsigned int)length;
    }
    return (int)count;
#endif
}

int32_t tern_receiver_read(
    tern_receiver *receiver, int32_t descriptor, size_t limit, const tern_datagrams **datagrams, size_t *count
) {
    *datagrams = receiver->datagrams;
    *count = 0;
    for (size_t i = 0; i < receiver->used; i++) {
        struct msghdr *header = &receiver->headers[i].msg_hdr;
        header->msg_namelen = sizeof(struct sockaddr_storage);
        header->msg_controllen = CONTROL_SPACE;
        header->msg_flags = 0;
    }
    receiver->used = 0;
    int taken;
    do {
        taken = receive(descriptor, receiver->headers, limit < receiver->slots ? limit : receiver->slots);
    } while (taken < 0 && errno == EINTR);
    if (taken < 0) { return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno; }
    receiver->used = (size_t)taken;
    *count = (size_t)taken;
    for (int i = 0; i < taken; i++) {
        struct msghdr *header = &receiver->headers[i].msg_hdr;
        tern_datagrams *entry = &receiver->datagrams[i];
        memset(entry, 0, sizeof(*entry));
        bool is_whole = (header->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
        if (!is_whole || !tern_address_from(&receiver->places[i].name, &entry->remote)) { continue; }
        entry->bytes = receiver->places[i].vector.iov_base;
        entry->count = receiver->headers[i].msg_len;
        entry->segment_size = entry->count;
        read_control(header, entry);
    }
    return 0;
}
