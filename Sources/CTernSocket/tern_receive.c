// SPDX-License-Identifier: Apache-2.0

// Reading datagrams, many of them in one call, without an allocation: recvmmsg, with UDP_GRO.

#if defined(__linux__)
#define _GNU_SOURCE
#endif

#include "tern_address.h"
#include "tern_poll.h"

#include <errno.h>

#if defined(__linux__)
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <netinet/udp.h>
#if !defined(SOL_UDP)
#define SOL_UDP 17
#endif
#if !defined(UDP_GRO)
#define UDP_GRO 104
#endif

/// A slot holds the longest datagram, or as many merged ones as the kernel merges.
#define SLOT_SIZE 65536
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
    receiver->headers = calloc(slots, sizeof(*receiver->headers));
    receiver->places = calloc(slots, sizeof(*receiver->places));
    receiver->datagrams = calloc(slots, sizeof(*receiver->datagrams));
    // Not touched, and so not there, before the system writes to it.
    receiver->memory = malloc(slots * SLOT_SIZE);
    if (!receiver->headers || !receiver->places || !receiver->datagrams || !receiver->memory) {
        tern_receiver_free(receiver);
        return NULL;
    }
    for (size_t i = 0; i < slots; i++) {
        slot *place = &receiver->places[i];
        place->vector.iov_base = receiver->memory + i * SLOT_SIZE;
        place->vector.iov_len = SLOT_SIZE;
        struct msghdr *header = &receiver->headers[i].msg_hdr;
        header->msg_name = &place->name;
        header->msg_iov = &place->vector;
        header->msg_iovlen = 1;
        header->msg_control = place->control;
    }
    receiver->used = slots;
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
        if (entry->cmsg_level == SOL_UDP && entry->cmsg_type == UDP_GRO) {
            int size = 0;
            memcpy(&size, CMSG_DATA(entry), sizeof(size));
            if (size > 0) { datagrams->segment_size = (size_t)size; }
        } else if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_TOS) {
            datagrams->ecn = *(const unsigned char *)CMSG_DATA(entry) & 3;
        } else if (entry->cmsg_level == IPPROTO_IPV6 && entry->cmsg_type == IPV6_TCLASS) {
            int mark = 0;
            memcpy(&mark, CMSG_DATA(entry), sizeof(mark));
            datagrams->ecn = (uint8_t)(mark & 3);
        } else if (entry->cmsg_level == IPPROTO_IP && entry->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(entry), sizeof(info));
            datagrams->local.low = ntohl(info.ipi_addr.s_addr);
            datagrams->local.family = 4;
        } else if (entry->cmsg_level == IPPROTO_IPV6 && entry->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(entry), sizeof(info));
            for (int i = 0; i < 8; i++) {
                datagrams->local.high = datagrams->local.high << 8 | info.ipi6_addr.s6_addr[i];
                datagrams->local.low = datagrams->local.low << 8 | info.ipi6_addr.s6_addr[8 + i];
            }
            datagrams->local.scope_id = info.ipi6_ifindex;
            datagrams->local.family = 6;
        }
    }
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
        taken = recvmmsg(
            descriptor, receiver->headers, (unsigned int)(limit < receiver->slots ? limit : receiver->slots), 0, NULL);
    } while (taken < 0 && errno == EINTR);
    if (taken < 0) { return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno; }
    receiver->used = (size_t)taken;
    for (int i = 0; i < taken; i++) {
        struct msghdr *header = &receiver->headers[i].msg_hdr;
        tern_datagrams *entry = &receiver->datagrams[*count];
        memset(entry, 0, sizeof(*entry));
        // Nothing that was sent in one piece is longer than a slot.
        if (header->msg_flags & MSG_TRUNC || !tern_address_from(&receiver->places[i].name, &entry->remote)) { continue; }
        entry->bytes = receiver->places[i].vector.iov_base;
        entry->count = receiver->headers[i].msg_len;
        entry->segment_size = entry->count;
        read_control(header, entry);
        *count += 1;
    }
    return 0;
}

void tern_socket_report(int32_t descriptor, uint8_t family, bool local_address, bool merged) {
    int on = 1;
    if (family == 6) {
        setsockopt(descriptor, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof(on));
        if (local_address) { setsockopt(descriptor, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on)); }
    } else {
        setsockopt(descriptor, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on));
        if (local_address) { setsockopt(descriptor, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)); }
    }
    if (merged) { setsockopt(descriptor, SOL_UDP, UDP_GRO, &on, sizeof(on)); }
}

#else

#include <stddef.h>

tern_receiver *tern_receiver_make(size_t slots) { (void)slots; return NULL; }
void tern_receiver_free(tern_receiver *receiver) { (void)receiver; }
int32_t tern_receiver_read(
    tern_receiver *receiver, int32_t descriptor, size_t limit, const tern_datagrams **datagrams, size_t *count
) {
    (void)receiver; (void)descriptor; (void)limit; (void)datagrams; (void)count;
    return ENOSYS;
}
void tern_socket_report(int32_t descriptor, uint8_t family, bool local_address, bool merged) {
    (void)descriptor; (void)family; (void)local_address; (void)merged;
}

#endif
