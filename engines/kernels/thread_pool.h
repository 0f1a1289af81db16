/* A pool of threads that run one job together; the thread that calls parallel_for takes part.
 *
 * A job is a number of phases of equally many pieces. A free thread takes the next piece, so that a thread whose core
 * has other work does not delay the rest. A phase's pieces begin when all pieces of the phase before are done.
 */
#ifndef MYNAH_THREAD_POOL
#define MYNAH_THREAD_POOL

struct thread_pool;

struct job {
    void (*piece)(void *argument, long phase, long piece, int thread); /* `thread` differs in pieces that run at once */
    void *argument;
    long phases, pieces; /* pieces of each phase */
};

/* The threads live as long as the process, which has one pool or few. They block all signals.
 * Returns a pool without those that could not be started, or NULL without memory. */
struct thread_pool *mynah_thread_pool(int threads);

/* From the next job on, so many of the pool's threads take part, the caller's included. */
void mynah_thread_pool_share(struct thread_pool *pool, int threads);

int pool_size(const struct thread_pool *pool);

/* Runs one job at a time and returns when all of it is done. */
void parallel_for(struct thread_pool *pool, const struct job *job);

#endif
