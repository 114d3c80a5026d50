// SPDX-License-Identifier: Apache-2.0

#include "fuzz_memory.h"

#if defined(__linux__) && defined(__GLIBC__)

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>

// What mallinfo() calls in use has the allocator's caches in it: blocks that the program freed drift into them, without end
// as it seems when little is counted a million times. So what is allocated and freed is counted itself.
static atomic_int_fast64_t bytes;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t number, size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *pointer);

static void *took(void *pointer) {
    atomic_fetch_add_explicit(&bytes, (int_fast64_t)malloc_usable_size(pointer), memory_order_relaxed);
    return pointer;
}

static void gave(void *pointer) {
    atomic_fetch_sub_explicit(&bytes, (int_fast64_t)malloc_usable_size(pointer), memory_order_relaxed);
}

void *malloc(size_t size) { return took(__libc_malloc(size)); }
void *calloc(size_t number, size_t size) { return took(__libc_calloc(number, size)); }
void *memalign(size_t alignment, size_t size) { return took(__libc_memalign(alignment, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return took(__libc_memalign(alignment, size)); }

int posix_memalign(void **pointer, size_t alignment, size_t size) {
    void *memory = __libc_memalign(alignment, size);
    if (!memory) return ENOMEM;
    *pointer = took(memory);
    return 0;
}

void *realloc(void *pointer, size_t size) {
    int_fast64_t before = (int_fast64_t)malloc_usable_size(pointer);
    void *memory = __libc_realloc(pointer, size);
    // Without memory the old block stays; of size zero there is none.
    if (!memory && size > 0) return NULL;
    atomic_fetch_sub_explicit(&bytes, before, memory_order_relaxed);
    return took(memory);
}

void free(void *pointer) {
    gave(pointer);
    __libc_free(pointer);
}

int64_t tern_fuzz_bytes_in_use(void) { return atomic_load_explicit(&bytes, memory_order_relaxed); }

#else

int64_t tern_fuzz_bytes_in_use(void) { return 0; }

#endif
