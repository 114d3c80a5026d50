// SPDX-License-Identifier: Apache-2.0

/// Reading datagrams, as many as the kernel has merged and several such runs in one call where the system can, into memory
/// that is used again and again.
#ifndef TERN_RECEIVE_H
#define TERN_RECEIVE_H

#include "tern_socket.h"

#if defined(__cplusplus)
extern "C" {
#endif

/// Bytes of the longest datagram, or of as many merged ones as the kernel merges.
#define TERN_LONGEST_RUN 65536

/// Datagrams of one sender that the kernel handed over together.
typedef struct tern_datagrams {
    unsigned char *bytes;
    /// 0 for what is of no use: it or what the system says of it was cut off, or its sender has no address that we know.
    size_t count;
    /// Each has so many bytes, the last perhaps fewer.
    size_t segment_size;
    tern_address remote;
    /// Where they were sent to, without port and scope, and the interface that they came in by; family 0 if the system does
    /// not say.
    tern_address local;
    uint32_t interface_index;
    /// The ECN field of the IP header, 0 to 3.
    uint8_t ecn;
} tern_datagrams;

/// Memory for the runs of datagrams of one call. It belongs to the caller, and to one thread at a time.
typedef struct tern_receiver tern_receiver;

/// For `slots` runs a call, each with `TERN_LONGEST_RUN` bytes of address space. Null if there is no memory.
tern_receiver *tern_receiver_make(size_t slots);
void tern_receiver_free(tern_receiver *receiver);

/// Reads what is there, `limit` runs of datagrams at most and no more than there are slots. Returns 0, also if nothing was there,
/// or the `errno`. What was read stays valid until the next call.
///
/// ECN marks, local addresses and merged datagrams come if the socket's options ask for them.
int32_t tern_receiver_read(
    tern_receiver *receiver, int32_t descriptor, size_t limit, const tern_datagrams **datagrams, size_t *count);

#if defined(__cplusplus)
}
#endif

#endif
