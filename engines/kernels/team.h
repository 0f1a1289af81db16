/* Threads that do one job together: whoever brings it takes part, the others sleep in between.
 *
 * Knows no arithmetic. A job is one function that every member calls with its own number; members meet at barriers,
 * where they spin for a moment, as the others are usually done within microseconds, and then sleep.
 */
#ifndef MYNAH_TEAM
#define MYNAH_TEAM

#include <pthread.h>
#include <stdatomic.h>

struct team {
    int members;
    void (*job)(struct team *team, void *argument, int member);
    void *argument;
    pthread_mutex_t one_job, lock;
    pthread_cond_t changed;
    atomic_int jobs, arrived, meetings; /* how many were begun, how many are at the barrier, how many took place */
};

/* One job at a time; returns when every member is done with it. */
void together(struct team *team, void (*job)(struct team *, void *, int), void *argument);

/* Within a job: returns when every member is here. */
void meet(struct team *team);

/* Members are never dismissed: a process has one team, or few. Signals are left to the threads that expect them.
 * Returns the team without those that could not be started, or NULL without memory. */
struct team *mynah_team(int members);

#endif
