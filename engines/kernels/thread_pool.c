/* The thread pool: threads take pieces from a counter, and wait first by spinning, then asleep. */
#include "thread_pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

struct thread_pool {
    int threads;
    pthread_mutex_t one_job, lock;
    pthread_cond_t changed;
    const struct job *job; /* NULL if there is none to join; like `busy` under the lock */
    int job_threads; /* that take part in it, the caller's included */
    int busy; /* threads at the job besides the caller's */
    atomic_int share; /* threads that take part in the next job */
    atomic_long started; /* jobs so far */
    atomic_long taken, done; /* pieces of this job, over all phases */
};

struct thread_start {
    struct thread_pool *pool;
    int number;
};

/* Waking a thread that sleeps takes longer than most pieces differ by, and than a net takes from one layer to the next.
 * Spinning for so short a time does not disturb other work. */
#define SPIN_NS 100000

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void wait_until(struct thread_pool *pool, atomic_long *count, long target)
{
    if (atomic_load(count) >= target) return;
    for (int64_t end = now_ns() + SPIN_NS; now_ns() < end;) {
        if (atomic_load(count) >= target) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(count) < target) pthread_cond_wait(&pool->changed, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static void notify(struct thread_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

/* Pieces are taken in order, so a thread that waits for a phase waits only for threads that do not wait for it. */
static void run_pieces(struct thread_pool *pool, const struct job *job, int thread)
{
    long all = job->phases * job->pieces;
    for (long i; (i = atomic_fetch_add(&pool->taken, 1)) < all;) {
        long phase = i / job->pieces;
        wait_until(pool, &pool->done, phase * job->pieces);
        job->piece(job->argument, phase, i % job->pieces, thread);
        if ((atomic_fetch_add(&pool->done, 1) + 1) % job->pieces == 0) notify(pool);
    }
}

static void *run_thread(void *argument)
{
    struct thread_start start = *(struct thread_start *)argument;
    struct thread_pool *pool = start.pool;
    free(argument);
    for (long seen = 0;;) {
        wait_until(pool, &pool->started, seen + 1);
        pthread_mutex_lock(&pool->lock);
        seen = atomic_load(&pool->started);
        const struct job *job = pool->job;
        if (start.number >= pool->job_threads) job = NULL;
        if (job != NULL) pool->busy++;
        pthread_mutex_unlock(&pool->lock);
        if (job == NULL) continue; /* it was done before this thread was awake, or is for fewer threads */
        run_pieces(pool, job, start.number);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0) pthread_cond_broadcast(&pool->changed);
        pthread_mutex_unlock(&pool->lock);
    }
    return NULL;
}

void parallel_for(struct thread_pool *pool, const struct job *job)
{
    pthread_mutex_lock(&pool->one_job);
    int threads = atomic_load(&pool->share);
    if (threads == 1) { /* nothing to wake, nothing to wait for */
        for (long i = 0; i < job->phases * job->pieces; i++)
            job->piece(job->argument, i / job->pieces, i % job->pieces, 0);
        pthread_mutex_unlock(&pool->one_job);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->job = job;
    pool->job_threads = threads;
    atomic_store(&pool->taken, 0);
    atomic_store(&pool->done, 0);
    atomic_fetch_add(&pool->started, 1);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    run_pieces(pool, job, 0);
    wait_until(pool, &pool->done, job->phases * job->pieces);
    pthread_mutex_lock(&pool->lock);
    pool->job = NULL;
    while (pool->busy > 0) pthread_cond_wait(&pool->changed, &pool->lock); /* threads still read the job */
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->one_job);
}

void mynah_thread_pool_share(struct thread_pool *pool, int threads)
{
    atomic_store(&pool->share, threads < 1 ? 1 : threads < pool->threads ? threads : pool->threads);
}

int pool_size(const struct thread_pool *pool) { return pool->threads; }

struct thread_pool *mynah_thread_pool(int threads)
{
    struct thread_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) return NULL;
    pthread_mutex_init(&pool->one_job, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    for (pool->threads = 1; pool->threads < threads; pool->threads++) {
        pthread_t thread;
        struct thread_start *start = malloc(sizeof *start);
        if (start == NULL) break;
        *start = (struct thread_start){pool, pool->threads};
        if (pthread_create(&thread, NULL, run_thread, start) != 0) {
            free(start);
            break;
        }
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store(&pool->share, pool->threads);
    return pool;
}
