// SPDX-License-Identifier: Apache-2.0

/// What this process holds and has used, as the system tells it.

#ifndef PROCESS_FIGURES_H
#define PROCESS_FIGURES_H

#include <stdint.h>

/// Bytes allocated and not freed; 0 where the system does not tell.
uint64_t allocated_bytes(void);

/// Bytes of memory that the process occupies; 0 where the system does not tell.
uint64_t resident_bytes(void);

/// CPU time that the calling thread has used, in nanoseconds.
uint64_t thread_cpu_nanoseconds(void);

#endif
