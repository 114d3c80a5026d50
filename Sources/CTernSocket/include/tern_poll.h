// SPDX-License-Identifier: Apache-2.0

/// Waiting for sockets, and reading them: Linux only, elsewhere every call fails with ENOSYS.
#ifndef TERN_POLL_H
#define TERN_POLL_H

#include "tern_socket.h"

#if defined(__cplusplus)
extern "C" {
#endif

/// A set of descriptors to be waited for, and a bell to end the wait from another thread.
typedef struct tern_poll {
    int32_t set;
    int32_t bell;
} tern_poll;

int32_t tern_poll_open(tern_poll *poll);
void tern_poll_close(const tern_poll *poll);

/// `token` is what `tern_poll_wait` reports; not 0.
int32_t tern_poll_add(const tern_poll *poll, int32_t descriptor, uint64_t token);
int32_t tern_poll_remove(const tern_poll *poll, int32_t descriptor);

/// Ends a wait, or the next one. From any thread.
void tern_poll_ring(const tern_poll *poll);

/// Waits until a descriptor can be read, the bell rings or `nanoseconds` are over (negative: for ever), and writes the tokens of
/// the descriptors that can be read. Returns how many.
size_t tern_poll_wait(const tern_poll *poll, int64_t nanoseconds, uint64_t *tokens, size_t capacity);

/// Datagrams of one sender that the kernel handed over together.
typedef struct tern_datagrams {
    unsigned char *bytes;
    size_t count;
    /// Each has so many bytes, the last perhaps fewer.
    size_t segment_size;
    tern_address remote;
    /// Where they were sent to; family 0 if the system does not say. Without port.
    tern_address local;
    /// The ECN field of the IP header, 0 to 3.
    uint8_t ecn;
} tern_datagrams;

/// Has the system report the ECN field, the address that a datagram was sent to if `local_address`, and hand datagrams over
/// merged if `merged`. Best effort.
void tern_socket_report(int32_t descriptor, uint8_t family, bool local_address, bool merged);

/// Memory for one read call, of `slots` runs of datagrams; null if there is none. It has no owner but the caller, and is touched
/// by one thread at a time.
typedef struct tern_receiver tern_receiver;
tern_receiver *tern_receiver_make(size_t slots);
void tern_receiver_free(tern_receiver *receiver);

/// Reads what is there, `limit` runs of datagrams at most, in one call. Returns 0, also if nothing was there, or the `errno`.
/// What was read stays valid until the next call.
int32_t tern_receiver_read(
    tern_receiver *receiver, int32_t descriptor, size_t limit, const tern_datagrams **datagrams, size_t *count);

#if defined(__cplusplus)
}
#endif

#endif
