// SPDX-License-Identifier: Apache-2.0

// Sending a batch of datagrams: with UDP_SEGMENT one call and one walk through the kernel for all, else one by one.

#include "tern_system.h"
#include "tern_address.h"
#include "tern_socket.h"

#include <stdalign.h>

/// The kernel takes no more segments a call (UDP_MAX_SEGMENTS of the oldest kernels that segment).
#define MAX_SEGMENTS 64
/// The largest payload that fits an IPv4 packet, and so the largest that can be segmented.
#define MAX_PAYLOAD 65507

/// Room for the source address, the ECN mark and the segment size.
#define CONTROL_SPACE (CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint16_t)))

typedef struct control {
    alignas(struct cmsghdr) unsigned char bytes[CONTROL_SPACE];
    size_t length;
} control;

static void append(control *control, int level, int type, const void *value, size_t size) {
    struct cmsghdr *header = (struct cmsghdr *)(control->bytes + control->length);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), value, size);
    control->length += CMSG_SPACE(size);
}

static void append_source(control *control, const tern_address *source) {
    if (source->family == 6) {
        struct in6_pktinfo info;
        memset(&info, 0, sizeof(info));
        info.ipi6_addr = tern_in6_addr(source);
        info.ipi6_ifindex = source->scope_id;
        append(control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
    } else {
        struct in_pktinfo info;
        memset(&info, 0, sizeof(info));
        info.ipi_spec_dst = tern_in_addr(source);
        append(control, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
    }
}

static void append_ecn(control *control, uint8_t family, uint8_t ecn) {
    int mark = ecn & 3;
    if (family == 6) {
        append(control, IPPROTO_IPV6, IPV6_TCLASS, &mark, sizeof(mark));
    } else {
        append(control, IPPROTO_IP, IP_TOS, &mark, sizeof(mark));
    }
}

static void fill(struct msghdr *message, struct sockaddr_storage *name, socklen_t length, struct iovec *iov, control *control) {
    memset(message, 0, sizeof(*message));
    message->msg_name = name;
    message->msg_namelen = length;
    message->msg_iov = iov;
    message->msg_iovlen = 1;
    message->msg_control = control->length > 0 ? control->bytes : NULL;
    message->msg_controllen = control->length;
}

/// One sendmsg. An interrupted call is repeated, and so is one that reports an ICMP error of an earlier datagram.
static int send_message(int descriptor, const struct msghdr *message) {
    for (int attempt = 0;; attempt++) {
        if (sendmsg(descriptor, message, 0) >= 0) { return 0; }
        int error = errno;
        if (error == EINTR || (error == ECONNREFUSED && attempt < 2)) { continue; }
        return error == EWOULDBLOCK ? EAGAIN : error;
    }
}

/// Each datagram for itself, in as few calls as there are. Returns the error that stopped it, and the bytes taken.
static int send_one_by_one(
    int descriptor, const unsigned char *bytes, size_t count, size_t segment_size, struct sockaddr_storage *name,
    socklen_t length, control *control, size_t *sent
) {
    *sent = 0;
    if (count <= segment_size) {
        struct iovec vector = {(void *)bytes, count};
        struct msghdr message;
        fill(&message, name, length, &vector, control);
        int error = send_message(descriptor, &message);
        if (error == 0) { *sent = count; }
        return error;
    }
#if defined(__linux__)
    struct mmsghdr messages[MAX_SEGMENTS];
    struct iovec vectors[MAX_SEGMENTS];
    int refusals = 0;
    while (*sent < count) {
        unsigned int filled = 0;
        for (size_t offset = *sent; offset < count && filled < MAX_SEGMENTS; offset += segment_size, filled++) {
            vectors[filled].iov_base = (void *)(bytes + offset);
            vectors[filled].iov_len = count - offset < segment_size ? count - offset : segment_size;
            fill(&messages[filled].msg_hdr, name, length, &vectors[filled], control);
            messages[filled].msg_len = 0;
        }
        int taken = sendmmsg(descriptor, messages, filled, 0);
        if (taken < 0) {
            int error = errno;
            if (error == EINTR || (error == ECONNREFUSED && refusals++ < 2)) { continue; }
            return error == EWOULDBLOCK ? EAGAIN : error;
        }
        for (int i = 0; i < taken; i++) { *sent += vectors[i].iov_len; }
    }
#else
    while (*sent < count) {
        struct iovec vector;
        struct msghdr message;
        vector.iov_base = (void *)(bytes + *sent);
        vector.iov_len = count - *sent < segment_size ? count - *sent : segment_size;
        fill(&message, name, length, &vector, control);
        int error = send_message(descriptor, &message);
        if (error != 0) { return error; }
        *sent += vector.iov_len;
    }
#endif
    return 0;
}

bool tern_socket_supports_segmentation(int32_t descriptor) {
#if defined(__linux__)
    int value = 0;
    socklen_t length = sizeof(value);
    return getsockopt(descriptor, SOL_UDP, UDP_SEGMENT, &value, &length) == 0;
#else
    (void)descriptor;
    return false;
#endif
}

tern_send_result tern_socket_send(
    int32_t descriptor, const void *bytes, size_t count, size_t segment_size, const tern_address *remote,
    const tern_address *source, uint8_t ecn, bool use_segmentation
) {
    tern_send_result result = {0, 0, false};
    if (segment_size == 0 || segment_size > count) { segment_size = count; }
    if (count == 0) { return result; }

    struct sockaddr_storage name;
    socklen_t length = tern_sockaddr(remote, &name);
    control common;
    common.length = 0;
    memset(common.bytes, 0, sizeof(common.bytes));
    if (source != NULL && source->family == remote->family) { append_source(&common, source); }
    if (ecn != 0) { append_ecn(&common, remote->family, ecn); }

#if defined(__linux__)
    while (use_segmentation && count - result.sent > segment_size && segment_size <= MAX_PAYLOAD) {
        size_t segments = MAX_PAYLOAD / segment_size < MAX_SEGMENTS ? MAX_PAYLOAD / segment_size : MAX_SEGMENTS;
        size_t rest = count - result.sent;
        size_t part = rest < segments * segment_size ? rest : segments * segment_size;
        control with_size = common;
        uint16_t size = (uint16_t)segment_size;
        append(&with_size, SOL_UDP, UDP_SEGMENT, &size, sizeof(size));
        struct iovec vector = {(void *)((const unsigned char *)bytes + result.sent), part};
        struct msghdr message;
        fill(&message, &name, length, &vector, &with_size);
        int error = send_message(descriptor, &message);
        if (error == 0) {
            result.sent += part;
            continue;
        }
        if (error != EIO && error != EINVAL) {
            result.error = error;
            return result;
        }
        // EIO: the device cannot compute the checksums. EINVAL: it cannot segment, or a segment is larger than the MTU, or
        // the source address is not ours. What happens without segmentation tells which.
        use_segmentation = false;
        result.segmentation_refused = true;
    }
#else
    (void)use_segmentation;
#endif

    if (result.sent < count) {
        size_t taken = 0;
        result.error = send_one_by_one(
            descriptor, (const unsigned char *)bytes + result.sent, count - result.sent, segment_size, &name, length, &common,
            &taken);
        result.sent += taken;
        if (taken == 0) { result.segmentation_refused = false; }
    }
    return result;
}
