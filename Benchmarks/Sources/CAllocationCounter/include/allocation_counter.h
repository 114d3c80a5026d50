// SPDX-License-Identifier: Apache-2.0

// Counts the allocations of the whole process, by taking the place of malloc and its kin in the executable.

#ifndef ALLOCATION_COUNTER_H
#define ALLOCATION_COUNTER_H

#include <stdint.h>

/// Allocations since the process started; 0 where they cannot be counted.
uint64_t allocation_count(void);

/// Whether allocations are counted on this system.
int allocation_counting_works(void);

#endif
