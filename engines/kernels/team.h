/* Threads that do one job together: whoever brings it takes part, the others sleep in between.
 *
 * Knows no arithmetic. A job is phases of equally many pieces. Whoever is free takes the next piece, so that a thread
 * whose core has other work holds up nobody; a phase's pieces begin when all of the phase before are done.
 */
#ifndef MYNAH_TEAM
#define MYNAH_TEAM

struct team;

struct job {
    void (*piece)(void *argument, long phase, long piece, int member); /* no two pieces at once have the same member */
    void *argument;
    long phases, pieces; /* pieces of each phase */
};

/* Members are never dismissed: a process has one team, or few. Signals are left to the threads that expect them.
 * Returns the team without those that could not be started, or NULL without memory. */
struct team *mynah_team(int members);

int members_of(const struct team *team);

/* One job at a time; returns when all of it is done. */
void together(struct team *team, const struct job *job);

#endif
