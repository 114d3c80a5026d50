// SPDX-License-Identifier: Apache-2.0

#include "tern_system.h"
#include "tern_socket.h"
#include "tern_address.h"

#include <fcntl.h>
#include <net/if.h>
#include <unistd.h>

static int set_option(int descriptor, int level, int name, int value) {
    return setsockopt(descriptor, level, name, &value, sizeof(value)) == 0 ? 0 : errno;
}

/// A datagram that does not fit is refused with EMSGSIZE rather than cut: QUIC measures the path itself (RFC 9000,
/// section 14). PROBE rather than DO, so that the kernel's own idea of the path's MTU does not get in the way.
static void forbid_fragmentation(int descriptor, uint8_t family) {
#if defined(__linux__)
    if (family == 6) {
        set_option(descriptor, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
        set_option(descriptor, IPPROTO_IPV6, IPV6_DONTFRAG, 1);
    } else {
        set_option(descriptor, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
    }
#else
    if (family == 6) {
#if defined(IPV6_DONTFRAG)
        set_option(descriptor, IPPROTO_IPV6, IPV6_DONTFRAG, 1);
#endif
    } else {
#if defined(IP_DONTFRAG)
        set_option(descriptor, IPPROTO_IP, IP_DONTFRAG, 1);
#endif
    }
#endif
}

static int tie_to_device(int descriptor, uint8_t family, const char *device) {
#if defined(__linux__)
    (void)family;
    return setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)strlen(device)) == 0 ? 0 : errno;
#elif defined(IP_BOUND_IF) && defined(IPV6_BOUND_IF)
    unsigned int index = if_nametoindex(device);
    if (index == 0) { return errno; }
    return family == 6 ? set_option(descriptor, IPPROTO_IPV6, IPV6_BOUND_IF, (int)index)
                       : set_option(descriptor, IPPROTO_IP, IP_BOUND_IF, (int)index);
#else
    (void)descriptor; (void)family; (void)device;
    return ENOTSUP;
#endif
}

/// A UDP socket, non-blocking and closed on exec.
static int open_datagram_socket(uint8_t family, int *descriptor) {
    int domain = family == 6 ? AF_INET6 : AF_INET;
#if defined(__linux__)
    int opened = socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (opened < 0) { return errno; }
#else
    int opened = socket(domain, SOCK_DGRAM, 0);
    if (opened < 0) { return errno; }
    fcntl(opened, F_SETFD, FD_CLOEXEC);
    fcntl(opened, F_SETFL, fcntl(opened, F_GETFL, 0) | O_NONBLOCK);
    set_option(opened, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
    *descriptor = opened;
    return 0;
}

int32_t tern_socket_open(const tern_address *local, const char *device, int32_t *descriptor, bool *tied_to_device) {
    int opened = -1;
    int error = open_datagram_socket(local->family, &opened);
    if (error != 0) { return error; }
    *tied_to_device = false;
    if (local->family == 6) {
        error = set_option(opened, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    }
    if (error == 0 && device != NULL) {
        error = tie_to_device(opened, local->family, device);
        *tied_to_device = error == 0;
        // Without the privilege the source address alone has to choose the interface.
        if (error == EPERM || error == ENOTSUP) { error = 0; }
    }
    if (error == 0) {
        forbid_fragmentation(opened, local->family);
        struct sockaddr_storage storage;
        socklen_t length = tern_sockaddr(local, &storage);
        error = bind(opened, (const struct sockaddr *)&storage, length) == 0 ? 0 : errno;
    }
    if (error != 0) {
        close(opened);
        return error;
    }
    *descriptor = opened;
    return 0;
}

int32_t tern_socket_duplicate(int32_t descriptor, int32_t *duplicate) {
    int copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) { return errno; }
    *duplicate = copy;
    return 0;
}

int32_t tern_socket_close(int32_t descriptor) {
    return close(descriptor) == 0 ? 0 : errno;
}

int32_t tern_socket_local_address(int32_t descriptor, tern_address *address) {
    struct sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    memset(&storage, 0, sizeof(storage));
    if (getsockname(descriptor, (struct sockaddr *)&storage, &length) != 0) { return errno; }
    return tern_address_from(&storage, address) ? 0 : EAFNOSUPPORT;
}

int32_t tern_socket_rebind(int32_t descriptor) {
#if defined(__linux__)
    tern_address before;
    int error = tern_socket_local_address(descriptor, &before);
    if (error != 0) { return error; }
    // Dissolving an association, even if there is none, gives a port back that the system chose.
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    if (connect(descriptor, &none, sizeof(none)) != 0) { return errno; }
    tern_address any_port = before;
    any_port.port = 0;
    struct sockaddr_storage storage;
    socklen_t length = tern_sockaddr(&any_port, &storage);
    return bind(descriptor, (const struct sockaddr *)&storage, length) == 0 ? 0 : errno;
#else
    (void)descriptor;
    return EINVAL;
#endif
}

static int option_value(int descriptor, int name) {
    int value = 0;
    socklen_t length = sizeof(value);
    return getsockopt(descriptor, SOL_SOCKET, name, &value, &length) == 0 ? value : 0;
}

/// The system cuts a request at its limit; halving finds the largest that systems take which refuse instead. The privileged
/// option, where there is one, passes the limit.
static void set_buffer_size(int descriptor, int name, int privileged_name, int bytes) {
    if (bytes <= 0) { return; }
    if (privileged_name != 0 && set_option(descriptor, SOL_SOCKET, privileged_name, bytes) == 0) { return; }
    for (int size = bytes; size >= 65536; size /= 2) {
        if (option_value(descriptor, name) >= size || set_option(descriptor, SOL_SOCKET, name, size) == 0) { return; }
    }
}

void tern_socket_set_buffer_sizes(int32_t descriptor, int32_t send_bytes, int32_t receive_bytes) {
#if defined(__linux__)
    set_buffer_size(descriptor, SO_SNDBUF, SO_SNDBUFFORCE, send_bytes);
    set_buffer_size(descriptor, SO_RCVBUF, SO_RCVBUFFORCE, receive_bytes);
#else
    set_buffer_size(descriptor, SO_SNDBUF, 0, send_bytes);
    set_buffer_size(descriptor, SO_RCVBUF, 0, receive_bytes);
#endif
}

void tern_socket_buffer_sizes(int32_t descriptor, int32_t *send_bytes, int32_t *receive_bytes) {
    *send_bytes = option_value(descriptor, SO_SNDBUF);
    *receive_bytes = option_value(descriptor, SO_RCVBUF);
}

int32_t tern_source_address(const tern_address *remote, const char *device, tern_address *source) {
    int probe = -1;
    int error = open_datagram_socket(remote->family, &probe);
    if (error != 0) { return error; }
    if (device != NULL) { tie_to_device(probe, remote->family, device); }
    struct sockaddr_storage storage;
    socklen_t length = tern_sockaddr(remote, &storage);
    // Connecting a UDP socket sends nothing; it looks the route up and takes the source address it would use.
    error = connect(probe, (const struct sockaddr *)&storage, length) == 0 ? 0 : errno;
    if (error == 0) { error = tern_socket_local_address(probe, source); }
    close(probe);
    return error;
}
