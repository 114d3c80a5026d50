// SPDX-License-Identifier: Apache-2.0

#if defined(__linux__)
#define _GNU_SOURCE
#endif

#include "tern_poll.h"

#include <errno.h>

#if defined(__linux__)
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int32_t tern_poll_add(const tern_poll *poll, int32_t descriptor, uint64_t token) {
    struct epoll_event event;
    memset(&event, 0, sizeof(event));
    event.events = EPOLLIN;
    event.data.u64 = token;
    return epoll_ctl(poll->set, EPOLL_CTL_ADD, descriptor, &event) == 0 ? 0 : errno;
}

int32_t tern_poll_remove(const tern_poll *poll, int32_t descriptor) {
    struct epoll_event event;
    memset(&event, 0, sizeof(event));
    return epoll_ctl(poll->set, EPOLL_CTL_DEL, descriptor, &event) == 0 ? 0 : errno;
}

int32_t tern_poll_open(tern_poll *poll) {
    poll->set = epoll_create1(EPOLL_CLOEXEC);
    if (poll->set < 0) { return errno; }
    poll->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = poll->bell < 0 ? errno : tern_poll_add(poll, poll->bell, 0);
    if (error != 0) {
        if (poll->bell >= 0) { close(poll->bell); }
        close(poll->set);
    }
    return error;
}

void tern_poll_close(const tern_poll *poll) {
    close(poll->bell);
    close(poll->set);
}

void tern_poll_ring(const tern_poll *poll) {
    uint64_t one = 1;
    while (write(poll->bell, &one, sizeof(one)) < 0 && errno == EINTR) {}
}

/// epoll_pwait2 where the kernel has it (5.11): its timeout is not in milliseconds.
static int wait_for(int set, struct epoll_event *events, int capacity, int64_t nanoseconds) {
#if defined(SYS_epoll_pwait2)
    if (nanoseconds > 0) {
        struct timespec timeout = {nanoseconds / 1000000000, nanoseconds % 1000000000};
        int count = (int)syscall(SYS_epoll_pwait2, set, events, capacity, &timeout, NULL, (size_t)0);
        if (count >= 0 || errno != ENOSYS) { return count; }
    }
#endif
    int64_t milliseconds = nanoseconds < 0 ? -1 : (nanoseconds + 999999) / 1000000;
    return epoll_wait(set, events, capacity, milliseconds > INT_MAX ? INT_MAX : (int)milliseconds);
}

size_t tern_poll_wait(const tern_poll *poll, int64_t nanoseconds, uint64_t *tokens, size_t capacity) {
    struct epoll_event events[64];
    int limit = capacity < 63 ? (int)capacity + 1 : 64;
    int count = wait_for(poll->set, events, limit, nanoseconds);
    size_t found = 0;
    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == 0) {
            uint64_t value;
            while (read(poll->bell, &value, sizeof(value)) < 0 && errno == EINTR) {}
        } else if (found < capacity) {
            tokens[found++] = events[i].data.u64;
        }
    }
    return found;
}

#else

int32_t tern_poll_open(tern_poll *poll) { (void)poll; return ENOSYS; }
void tern_poll_close(const tern_poll *poll) { (void)poll; }
int32_t tern_poll_add(const tern_poll *poll, int32_t descriptor, uint64_t token) {
    (void)poll; (void)descriptor; (void)token;
    return ENOSYS;
}
int32_t tern_poll_remove(const tern_poll *poll, int32_t descriptor) { (void)poll; (void)descriptor; return ENOSYS; }
void tern_poll_ring(const tern_poll *poll) { (void)poll; }
size_t tern_poll_wait(const tern_poll *poll, int64_t nanoseconds, uint64_t *tokens, size_t capacity) {
    (void)poll; (void)nanoseconds; (void)tokens; (void)capacity;
    return 0;
}

#endif
