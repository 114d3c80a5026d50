// SPDX-License-Identifier: Apache-2.0

#ifndef TERN_TESTING_H
#define TERN_TESTING_H

#include <stdbool.h>

#pragma clang assume_nonnull begin

/// Takes a job of Swift concurrency that was to go to the global executor; false to let it go there.
typedef bool (*tern_job_taker)(void *simulation, void *job);

/// Has `taker` asked, on threads that belong to a simulation, about every job that is made ready there and prefers no
/// executor. Once a process; harmless when repeated. False where the runtime has no such hook.
bool tern_take_jobs(tern_job_taker taker);

/// Says that this thread belongs to a simulation from now on, or with null that it belongs to none.
void tern_set_simulation(void *_Nullable simulation);

/// The simulation that this thread belongs to, or null.
void *_Nullable tern_simulation(void);

#pragma clang assume_nonnull end

#endif
