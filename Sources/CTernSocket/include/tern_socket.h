// SPDX-License-Identifier: Apache-2.0

/// The system calls that Swift cannot spell: a UDP socket with its options, and sends with control messages.
///
/// `tern_networks.h` has the host's interfaces, `tern_receive.h` the reads.
///
/// Every function that can fail returns 0 or the `errno`, and none keeps any state: the descriptor is the caller's.
#ifndef TERN_SOCKET_H
#define TERN_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/// An IP address and UDP port. Numbers are in host order; `high` and `low` are the two halves of an IPv6 address, and an
/// IPv4 address is in the last 32 bits of `low`.
typedef struct tern_address {
    uint64_t high;
    uint64_t low;
    uint32_t scope_id;
    uint16_t port;
    /// 4 or 6.
    uint8_t family;
} tern_address;

/// What a send came to.
typedef struct tern_send_result {
    /// 0, or the `errno` of the datagram that the system refused. With EAGAIN the socket's buffer is full.
    int32_t error;
    /// Bytes of the batch that the system took before that: whole segments.
    size_t sent;
    /// The socket (or the device behind it) cannot segment, although each datagram alone was taken. Do not ask again.
    bool segmentation_refused;
} tern_send_result;

/// Opens a non-blocking UDP socket bound to `local`, IPv6 only if that is IPv6, with fragmentation by this host and by
/// routers turned off. `device` (may be null) names the interface it is tied to; without the right to tie it the socket
/// is opened all the same and `*tied_to_device` says so.
int32_t tern_socket_open(const tern_address *local, const char *device, int32_t *descriptor, bool *tied_to_device);

/// Another descriptor of the same socket, closed on exec.
int32_t tern_socket_duplicate(int32_t descriptor, int32_t *duplicate);

int32_t tern_socket_close(int32_t descriptor);

/// The address the socket is bound to.
int32_t tern_socket_local_address(int32_t descriptor, tern_address *address);

/// Gives a socket whose port the system chose another such port, at the same address: for tests. EINVAL elsewhere.
int32_t tern_socket_rebind(int32_t descriptor);

/// Asks for buffers of so many bytes and takes what the system allows.
void tern_socket_set_buffer_sizes(int32_t descriptor, int32_t send_bytes, int32_t receive_bytes);

/// The sizes in force, in bytes, as the system counts them (Linux counts its own overhead, too).
void tern_socket_buffer_sizes(int32_t descriptor, int32_t *send_bytes, int32_t *receive_bytes);

/// Whether the kernel knows UDP_SEGMENT. The device may refuse it still: see `segmentation_refused`.
bool tern_socket_supports_segmentation(int32_t descriptor);

/// Sends `count` bytes as datagrams of `segment_size` bytes each, the last perhaps shorter: in one call with UDP_SEGMENT if
/// `use_segmentation`, else with as few calls as the system has for it.
///
/// `source` (may be null) is the address to send from, for a socket bound to none in particular; its port is not used.
/// `ecn` is the ECN field of the IP header, 0 to 3. An error stops the batch: what follows is not tried.
tern_send_result tern_socket_send(
    int32_t descriptor, const void *bytes, size_t count, size_t segment_size, const tern_address *remote,
    const tern_address *source, uint8_t ecn, bool use_segmentation);

/// The address that the system would send to `remote` from, over `device` if that is not null. Nothing is sent.
int32_t tern_source_address(const tern_address *remote, const char *device, tern_address *source);

#if defined(__cplusplus)
}
#endif

#endif
