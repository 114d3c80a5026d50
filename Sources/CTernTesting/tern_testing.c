// SPDX-License-Identifier: Apache-2.0

#include "tern_testing.h"

#include <stdatomic.h>

// The runtime of Swift concurrency asks this function pointer, if there is one, about each job for the global executor. The
// declarations are those of its header, which is not installed; the symbol has been there since Swift 5.5.
#define TERN_SWIFT_CALL __attribute__((swiftcall))
typedef TERN_SWIFT_CALL void (*tern_enqueue)(void *job);
typedef TERN_SWIFT_CALL void (*tern_enqueue_hook)(void *job, tern_enqueue original);

#ifdef __APPLE__
#define TERN_WEAK __attribute__((weak_import))
#else
#define TERN_WEAK __attribute__((weak))
#endif

extern TERN_WEAK tern_enqueue_hook swift_task_enqueueGlobal_hook;

static _Thread_local void *current_simulation;
static _Atomic(tern_job_taker) current_taker;
// Whoever was asked before us.
static _Atomic(tern_enqueue_hook) previous_hook;

static TERN_SWIFT_CALL void enqueue(void *job, tern_enqueue original) {
    tern_job_taker taker = atomic_load(&current_taker);
    if (current_simulation && taker && taker(current_simulation, job)) return;
    tern_enqueue_hook previous = atomic_load(&previous_hook);
    if (previous) {
        previous(job, original);
    } else {
        original(job);
    }
}

bool tern_take_jobs(tern_job_taker taker) {
    if (!&swift_task_enqueueGlobal_hook) return false;
    tern_job_taker none = 0;
    if (atomic_compare_exchange_strong(&current_taker, &none, taker)) {
        atomic_store(&previous_hook, swift_task_enqueueGlobal_hook);
        swift_task_enqueueGlobal_hook = enqueue;
    }
    return true;
}

void tern_set_simulation(void *simulation) { current_simulation = simulation; }

void *tern_simulation(void) { return current_simulation; }
