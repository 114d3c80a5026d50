// SPDX-License-Identifier: Apache-2.0

#ifndef TERN_ADDRESS_H
#define TERN_ADDRESS_H

#include "tern_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static inline struct in_addr tern_in_addr(const tern_address *address) {
    struct in_addr result;
    result.s_addr = htonl((uint32_t)address->low);
    return result;
}

static inline struct in6_addr tern_in6_addr(const tern_address *address) {
    struct in6_addr result;
    for (int i = 0; i < 8; i++) {
        result.s6_addr[i] = (uint8_t)(address->high >> (56 - 8 * i));
        result.s6_addr[8 + i] = (uint8_t)(address->low >> (56 - 8 * i));
    }
    return result;
}

/// Writes the system's form of an address and returns its length.
static inline socklen_t tern_sockaddr(const tern_address *address, struct sockaddr_storage *storage) {
    if (address->family == 6) {
        struct sockaddr_in6 *inet6 = (struct sockaddr_in6 *)storage;
        memset(inet6, 0, sizeof(*inet6));
#if defined(__APPLE__)
        inet6->sin6_len = sizeof(*inet6);
#endif
        inet6->sin6_family = AF_INET6;
        inet6->sin6_port = htons(address->port);
        inet6->sin6_addr = tern_in6_addr(address);
        inet6->sin6_scope_id = address->scope_id;
        return sizeof(*inet6);
    }
    struct sockaddr_in *inet = (struct sockaddr_in *)storage;
    memset(inet, 0, sizeof(*inet));
#if defined(__APPLE__)
    inet->sin_len = sizeof(*inet);
#endif
    inet->sin_family = AF_INET;
    inet->sin_port = htons(address->port);
    inet->sin_addr = tern_in_addr(address);
    return sizeof(*inet);
}

static inline void tern_address_set_in6(tern_address *address, const struct in6_addr *in6) {
    for (int i = 0; i < 8; i++) {
        address->high = address->high << 8 | in6->s6_addr[i];
        address->low = address->low << 8 | in6->s6_addr[8 + i];
    }
}

/// False if the address is neither IPv4 nor IPv6.
static inline bool tern_address_from(const struct sockaddr_storage *storage, tern_address *address) {
    memset(address, 0, sizeof(*address));
    if (storage->ss_family == AF_INET6) {
        const struct sockaddr_in6 *inet6 = (const struct sockaddr_in6 *)storage;
        tern_address_set_in6(address, &inet6->sin6_addr);
        address->scope_id = inet6->sin6_scope_id;
        address->port = ntohs(inet6->sin6_port);
        address->family = 6;
        return true;
    }
    if (storage->ss_family == AF_INET) {
        const struct sockaddr_in *inet = (const struct sockaddr_in *)storage;
        address->low = ntohl(inet->sin_addr.s_addr);
        address->port = ntohs(inet->sin_port);
        address->family = 4;
        return true;
    }
    return false;
}

#endif
