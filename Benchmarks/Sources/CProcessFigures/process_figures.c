// SPDX-License-Identifier: Apache-2.0

#include "process_figures.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <malloc.h>
#endif

uint64_t allocated_bytes(void) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

uint64_t resident_bytes(void) {
#if defined(__linux__)
    unsigned long long size, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    int fields = fscanf(file, "%llu %llu", &size, &resident);
    fclose(file);
    return fields == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
#else
    return 0;
#endif
}

uint64_t thread_cpu_nanoseconds(void) {
    struct timespec time;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)) return 0;
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}
