/* How pieces are taken, and how threads wait: for a moment awake, then asleep. */
#include "team.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

struct team {
    int members;
    pthread_mutex_t one_job, lock;
    pthread_cond_t changed;
    const struct job *job; /* NULL when there is none to join; with `inside` under the lock */
    int inside; /* members at it besides the one who brought it */
    atomic_long begun; /* jobs so far */
    atomic_long taken, done; /* pieces of this one, over all phases */
};

struct member {
    struct team *team;
    int number;
};

/* Waking a thread that sleeps takes longer than most pieces differ by, and than a net takes from one layer to the next;
 * nobody misses a core for so short a time. */
#define SPIN_NS 100000

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void until(struct team *team, atomic_long *count, long least)
{
    if (atomic_load(count) >= least) return;
    for (int64_t end = now_ns() + SPIN_NS; now_ns() < end;) {
        if (atomic_load(count) >= least) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&team->lock);
    while (atomic_load(count) < least) pthread_cond_wait(&team->changed, &team->lock);
    pthread_mutex_unlock(&team->lock);
}

static void tell(struct team *team)
{
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
}

/* Pieces are taken in order, so that whoever waits for a phase waits for others who do not wait for it. */
static void take_part(struct team *team, const struct job *job, int member)
{
    long all = job->phases * job->pieces;
    for (long i; (i = atomic_fetch_add(&team->taken, 1)) < all;) {
        long phase = i / job->pieces;
        until(team, &team->done, phase * job->pieces);
        job->piece(job->argument, phase, i % job->pieces, member);
        if ((atomic_fetch_add(&team->done, 1) + 1) % job->pieces == 0) tell(team);
    }
}

static void *serve(void *argument)
{
    struct member member = *(struct member *)argument;
    struct team *team = member.team;
    free(argument);
    for (long seen = 0;;) {
        until(team, &team->begun, seen + 1);
        pthread_mutex_lock(&team->lock);
        seen = atomic_load(&team->begun);
        const struct job *job = team->job;
        if (job != NULL) team->inside++;
        pthread_mutex_unlock(&team->lock);
        if (job == NULL) continue; /* it was done before this thread was awake */
        take_part(team, job, member.number);
        pthread_mutex_lock(&team->lock);
        if (--team->inside == 0) pthread_cond_broadcast(&team->changed);
        pthread_mutex_unlock(&team->lock);
    }
    return NULL;
}

void together(struct team *team, const struct job *job)
{
    pthread_mutex_lock(&team->one_job);
    pthread_mutex_lock(&team->lock);
    team->job = job;
    atomic_store(&team->taken, 0);
    atomic_store(&team->done, 0);
    atomic_fetch_add(&team->begun, 1);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
    take_part(team, job, 0);
    until(team, &team->done, job->phases * job->pieces);
    pthread_mutex_lock(&team->lock);
    team->job = NULL;
    while (team->inside > 0) pthread_cond_wait(&team->changed, &team->lock); /* they still look at the job */
    pthread_mutex_unlock(&team->lock);
    pthread_mutex_unlock(&team->one_job);
}

int members_of(const struct team *team) { return team->members; }

struct team *mynah_team(int members)
{
    struct team *team = calloc(1, sizeof *team);
    if (team == NULL) return NULL;
    pthread_mutex_init(&team->one_job, NULL);
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->changed, NULL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    for (team->members = 1; team->members < members; team->members++) {
        pthread_t thread;
        struct member *member = malloc(sizeof *member);
        if (member == NULL) break;
        *member = (struct member){team, team->members};
        if (pthread_create(&thread, NULL, serve, member) != 0) {
            free(member);
            break;
        }
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return team;
}
