// SPDX-License-Identifier: Apache-2.0

/// The host's network interfaces and their addresses, and word of when they change: rtnetlink on Linux, elsewhere ENOTSUP.
///
/// What is read is always the whole state. Notifications only say that it may have changed, so that none can be missed.
#ifndef TERN_NETWORKS_H
#define TERN_NETWORKS_H

#include "tern_socket.h"

#if defined(__cplusplus)
extern "C" {
#endif

typedef enum tern_network_kind {
    TERN_NETWORK_OTHER = 0,
    TERN_NETWORK_WIRED = 1,
    TERN_NETWORK_WIFI = 2,
    TERN_NETWORK_CELLULAR = 3,
    TERN_NETWORK_VPN = 4,
    TERN_NETWORK_LOOPBACK = 5,
} tern_network_kind;

typedef struct tern_network_interface {
    uint32_t index;
    tern_network_kind kind;
    /// Administratively up, with a carrier.
    bool is_running;
    /// Ends with a zero.
    char name[17];
} tern_network_interface;

typedef struct tern_network_address {
    uint32_t index;
    tern_address address;
} tern_network_address;

/// Reads all interfaces and all addresses that can be sent from. What exceeds a capacity is left out.
int32_t tern_networks_read(
    tern_network_interface *interfaces, size_t interface_capacity, size_t *interface_count,
    tern_network_address *addresses, size_t address_capacity, size_t *address_count);

/// Opens a non-blocking descriptor that becomes readable when an interface, an address or a route changes. The caller reads
/// and drops what comes, then calls `tern_networks_read`.
int32_t tern_networks_watch(int32_t *descriptor);

#if defined(__cplusplus)
}
#endif

#endif
