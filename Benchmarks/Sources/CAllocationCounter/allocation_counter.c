// SPDX-License-Identifier: Apache-2.0

#include "allocation_counter.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__linux__) && defined(__GLIBC__)

static atomic_uint_fast64_t count;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t number, size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static void note(void) { atomic_fetch_add_explicit(&count, 1, memory_order_relaxed); }

void *malloc(size_t size) {
    note();
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    note();
    return __libc_calloc(number, size);
}

void *realloc(void *pointer, size_t size) {
    note();
    return __libc_realloc(pointer, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    note();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **pointer, size_t alignment, size_t size) {
    note();
    void *memory = __libc_memalign(alignment, size);
    if (!memory) return ENOMEM;
    *pointer = memory;
    return 0;
}

#ifdef REPORTS_AT_EXIT
// As a library that is loaded before the program's own ones, by `Benchmarks/allocations`.
#include <inttypes.h>
#include <stdio.h>

__attribute__((destructor)) static void report(void) {
    fprintf(stderr, "allocations %" PRIu64 "\n", (uint64_t)atomic_load_explicit(&count, memory_order_relaxed));
}
#endif

uint64_t allocation_count(void) { return atomic_load_explicit(&count, memory_order_relaxed); }
int allocation_counting_works(void) { return 1; }

#else

uint64_t allocation_count(void) { return 0; }
int allocation_counting_works(void) { return 0; }

#endif
