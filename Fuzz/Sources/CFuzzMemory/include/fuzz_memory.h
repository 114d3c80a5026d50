// SPDX-License-Identifier: Apache-2.0

#ifndef TERN_FUZZ_MEMORY_H
#define TERN_FUZZ_MEMORY_H

#include <stdint.h>

/// Bytes that the process has allocated and not freed; 0 where the system does not tell.
int64_t tern_fuzz_bytes_in_use(void);

#endif
