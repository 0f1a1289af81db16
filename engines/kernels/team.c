/* Threads that sleep between jobs and, within one, wait for each other at barriers. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "team.h"

struct member {
    struct team *team;
    int number;
};

/* Waking a thread that sleeps takes longer than most jobs' members differ by, and than a net takes from one layer to the
 * next; nobody misses a core for so short a time. */
#define SPIN_NS 300000

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void until_changed(struct team *team, atomic_int *count, int known)
{
    for (int64_t end = now_ns() + SPIN_NS; now_ns() < end;) {
        if (atomic_load(count) != known) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&team->lock);
    while (atomic_load(count) == known) pthread_cond_wait(&team->changed, &team->lock);
    pthread_mutex_unlock(&team->lock);
}

static void change(struct team *team, atomic_int *count)
{
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(count, 1);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
}

void meet(struct team *team)
{
    int known = atomic_load(&team->meetings);
    if (atomic_fetch_add(&team->arrived, 1) < team->members - 1) {
        until_changed(team, &team->meetings, known);
        return;
    }
    atomic_store(&team->arrived, 0);
    change(team, &team->meetings);
}

static void *serve(void *argument)
{
    struct member member = *(struct member *)argument;
    free(argument);
    for (int done = 0;; done++) {
        until_changed(member.team, &member.team->jobs, done);
        member.team->job(member.team, member.team->argument, member.number);
        meet(member.team);
    }
    return NULL;
}

void together(struct team *team, void (*job)(struct team *, void *, int), void *argument)
{
    pthread_mutex_lock(&team->one_job);
    team->job = job;
    team->argument = argument;
    change(team, &team->jobs);
    job(team, argument, 0);
    meet(team);
    pthread_mutex_unlock(&team->one_job);
}

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
