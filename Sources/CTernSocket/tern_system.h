// SPDX-License-Identifier: Apache-2.0

/// What the system's headers have of UDP sockets. To be included first: it sets what they look at.
#ifndef TERN_SYSTEM_H
#define TERN_SYSTEM_H

#if defined(__linux__)
#define _GNU_SOURCE
#elif defined(__APPLE__)
#define __APPLE_USE_RFC_3542
#endif

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#if defined(__linux__)
#include <netinet/udp.h>
// Newer than some C libraries.
#if !defined(SOL_UDP)
#define SOL_UDP 17
#endif
#if !defined(UDP_SEGMENT)
#define UDP_SEGMENT 103
#endif
#if !defined(UDP_GRO)
#define UDP_GRO 104
#endif
#endif

#endif
