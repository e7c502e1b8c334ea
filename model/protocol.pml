/*
 * The protocol of changes, snapshots and heartbeats, as SPIN checks it. docs/explanation/protocol.md explains it.
 *
 * Sets of transactions are bit masks: bit n stands for transaction n. A snapshot is the set of transactions that it
 * sees: all that have ended, by commit or rollback. Each option of a process is one step, and SPIN tries every order of
 * steps. A statement is sent and executed in one step; its answer arrives in a later one, or never.
 *
 * Bounds, set with -D: TXS transactions, TROUBLES crashes and failovers. Each mistake that
 * tests/cache/test_coherence_mistakes.py plants has a -D of its own; model/__main__.py lists them.
 */

#ifndef TXS
#define TXS 2
#endif
#ifndef TROUBLES
#define TROUBLES 1
#endif

#define NOBODY 7 /* no server was met yet */
#ifdef UNNOTICED_CRASH /* Both servers have one name. */
#define IS_SAME(one, other) ((one) != NOBODY && (other) != NOBODY)
#else
#define IS_SAME(one, other) ((one) == (other))
#endif
#define BIT(n) (1 << (n))
#define GIVEN_OUT (BIT(next) - 1) /* the numbers of transactions that exist */

/* ---------------------------------------------------------------- The database */

byte next;      /* the number that the next transaction gets */
byte running;   /* transactions that have not ended */
byte committed; /* transactions that were committed, and survived */
byte revoking;  /* transactions that revoke the key */
byte binding;   /* transactions that bind it to the resource */
byte moving;    /* transactions that give the resource's name to another resource */
byte last;      /* the transaction that committed last: a failover may lose it */
byte server;    /* who answers: another number after each crash and failover */
bit was_bound;  /* whether the key was bound before it all began */
byte aged;      /* committed transactions that are older than MAX_STALENESS_S */

#ifdef JOINS_BINDINGS
byte joined; /* revocations that found the key bound, and named the resource's bindings */
#define TELLS_KEY 0
#define TELLS_BINDINGS (binding | joined)
#else
#define TELLS_KEY revoking
#define TELLS_BINDINGS binding
#endif
#define TELLS_DIRECTORY moving
#define TELLS (TELLS_KEY | TELLS_BINDINGS | TELLS_DIRECTORY)

#ifdef WRITES_BACK
byte saving;   /* transactions that note when the key was used, and save all of its record */
bit saw_valid; /* the record that such a transaction read was not revoked */
bit undone;    /* the revocation was overwritten */
#define IS_REVOKED ((committed & revoking) != 0 && !undone)
#else
#define IS_REVOKED ((committed & revoking) != 0)
#endif
#define IS_BOUND (was_bound || (committed & binding) != 0)
#define IS_MOVED ((committed & moving) != 0)

inline begin() {
    running = running | BIT(next);
    if
    :: revoking = revoking | BIT(next);
#ifdef JOINS_BINDINGS
       if :: IS_BOUND -> joined = joined | BIT(next) :: else fi
#endif
    :: binding = binding | BIT(next)
    :: moving = moving | BIT(next)
#ifdef WRITES_BACK
    :: !saving -> saving = BIT(next); saw_valid = !IS_REVOKED
#endif
    fi;
    next++
}

inline end_one(t) { /* of the transactions that run */
    if
    :: (running & BIT(0)) -> t = 0
    :: (running & BIT(1)) -> t = 1
#if TXS > 2
    :: (running & BIT(2)) -> t = 2
#endif
#if TXS > 3
    :: (running & BIT(3)) -> t = 3
#endif
    fi;
    running = running & ~BIT(t)
}

/* At most two run at a time: two writers, who commit or roll back in any order. */
active proctype Writers() {
    byte t;
    do
    :: atomic { next < TXS && (running & (running - 1)) == 0 -> begin() }
    :: atomic {
        running -> end_one(t);
        committed = committed | BIT(t);
        last = (server < TROUBLES -> BIT(t) : 0);
#ifdef WRITES_BACK
        if :: (saving & BIT(t)) && saw_valid && IS_REVOKED -> undone = 1 :: else fi;
#endif
        t = 0
       }
    :: atomic { running -> end_one(t); t = 0 } /* rolls back */
    od
}

/* After a crash or a failover the numbers above the last commit on disk are given out again. */
inline recover() {
    running = 0;
    do
    :: next > 0 && !(committed & BIT(next - 1)) -> next--
    :: else -> break
    od;
    revoking = revoking & GIVEN_OUT;
    binding = binding & GIVEN_OUT;
    moving = moving & GIVEN_OUT;
    aged = aged & committed;
    last = 0;
#ifdef JOINS_BINDINGS
    joined = joined & GIVEN_OUT;
#endif
#ifdef WRITES_BACK
    saving = saving & GIVEN_OUT;
#endif
    server++
}

active proctype Troubles() {
    do
    :: atomic { server < TROUBLES -> recover() } /* A backend is killed, and PostgreSQL recovers. */
#ifndef UNNOTICED_CRASH
    :: atomic { /* A standby takes over, which may lack the last commit. */
        server < TROUBLES && last -> committed = committed & ~last; recover()
       }
#endif
    od
}

/* ---------------------------------------------------------------- A worker, and what others share with it */

typedef Reading {
    bit here;
    byte snapshot;
    byte excused; /* changes that were heard before its statement was sent, and not since */
    byte server;
    bit old;      /* sent more than MAX_STALENESS_S ago, or read by another worker */
}

Reading entry;   /* the cache */
Reading fill;    /* an answer on its way: from the database or the shared tier */
byte heard;      /* changes that the worker knows of */
byte unproven;   /* those that only a notification reported */
byte floor;      /* every reading must have seen all of this: raised by a flush */
byte previous;   /* the snapshot of the last heartbeat that was answered */
byte met;        /* the server that the worker follows */
bit starts_over; /* it takes the next server for another one */
bit is_old;      /* its last answered heartbeat was sent more than MAX_STALENESS_S ago */
bit is_answered; /* no heartbeat was sent since the last answer: only -DLIVENESS keeps it */

bit beating;     /* a heartbeat's answer is on its way, with: */
byte b_snapshot, b_changes, b_server;
bit b_flush, b_old;

Reading shared;  /* the shared tier: its one entry, under the name of the server it was read from */

/* What the database says to a request with the key. */
#define IS_GRANTED (IS_BOUND && !IS_REVOKED && !IS_MOVED)

/* Changes that count against what grants: it depends on the key, its bindings and the resource's name. */
#ifdef NO_DIRECTORY
#define OF_SOURCES (~TELLS_DIRECTORY)
#else
#define OF_SOURCES (255)
#endif

#define IS_CURRENT(r) \
    ((r.snapshot & floor) == floor && (heard & OF_SOURCES & ~r.snapshot & ~r.excused) == 0)
#define IS_FRESH(r) (r.here && (!r.old || !is_old) && IS_CURRENT(r))

inline copy(from, to) {
    to.here = from.here;
    to.snapshot = from.snapshot;
    to.excused = from.excused;
    to.server = from.server;
    to.old = from.old
}

inline drop(r) {
    r.here = 0;
    r.snapshot = 0;
    r.excused = 0;
    r.server = 0;
    r.old = 0
}

inline hear(changes) {
    heard = heard | ((changes) & ~floor);
    entry.excused = entry.excused & ~(changes);
    fill.excused = fill.excused & ~(changes)
}

inline forget(changes) {
    heard = heard & ~(changes);
    unproven = unproven & ~(changes);
    entry.excused = entry.excused & heard;
    fill.excused = fill.excused & heard
}

/* A notification of any transaction at any time: real, lost (it does not come), late, repeated or forged. */
inline notified(t) {
    unproven = unproven | (BIT(t) & ~heard & ~floor);
    hear(BIT(t))
}

inline send_heartbeat() {
    beating = 1;
    is_answered = 0;
    b_snapshot = GIVEN_OUT & ~running;
    b_changes = committed & (TELLS) & ~previous;
    b_server = server;
    if /* changes were purged, were too many, or a trigger was touched */
    :: b_flush = 1; b_changes = 0
    :: skip
    fi
#ifdef NO_CATCH_UP
    ; b_changes = 0
#endif
}

inline lose_heartbeat() {
    beating = 0;
    b_snapshot = 0;
    b_changes = 0;
    b_server = 0;
    b_flush = 0;
    b_old = 0
}

inline take_heartbeat() {
    if
    :: !IS_SAME(b_server, met) || starts_over ->
        starts_over = 0;
        floor = b_snapshot;
        forget(b_snapshot);
#ifndef MIXES_SERVERS
        drop(entry);
        drop(fill)
#endif
    :: else -> skip
    fi;
    if
    :: b_flush -> floor = b_snapshot; forget(b_snapshot)
    :: else
    fi;
    hear(b_changes);
    unproven = unproven & ~b_changes;
    forget(unproven); /* No heartbeat reports them: forged. */
    met = b_server;
    previous = b_snapshot;
    is_old = b_old;
#ifdef LIVENESS
    is_answered = 1;
#endif
    lose_heartbeat()
}

inline read(r) { /* what grants: an answer that refuses is never wrong, and not kept here */
    r.here = 1;
#ifdef COUNTS
    r.snapshot = GIVEN_OUT;
#else
    r.snapshot = GIVEN_OUT & ~running;
#endif
    r.server = server
}

/* Another worker's entry, if a heartbeat vouches for it; its age is unknown, and nothing is excused. */
inline ask_shared_tier() {
    copy(shared, fill);
#ifdef TRUSTS_SHARED
    fill.old = 0
#else
    fill.old = 1
#endif
}

#define IS_STRANGER (met != NOBODY && !IS_SAME(fill.server, met))

inline take_fill() {
    if /* another server than the followed one answers */
    :: IS_STRANGER && !is_old -> drop(fill)
    :: IS_STRANGER && is_old -> starts_over = 1
    :: else
    fi;
    if
#ifdef CHECKS_BEFORE
    :: fill.here -> copy(fill, entry); entry.server = 0; entry.excused = heard & ~entry.snapshot
#else
    :: IS_FRESH(fill) -> copy(fill, entry); entry.server = 0
#endif
    :: else
    fi;
    drop(fill)
}

#ifdef TRUSTS_SHARED
#define MAY_BORROW (shared.here && IS_SAME(shared.server, met))
#else
#define MAY_BORROW (shared.here && IS_SAME(shared.server, met) && !is_old)
#endif

/* Committed transactions by which the key must not open the resource any more. */
#define AGAINST (committed & (revoking | moving))
/* Those of them that the last heartbeat saw. */
#define VOUCHED (met == server -> AGAINST & previous : 0)

active proctype Worker() {
    met = NOBODY;
    is_old = 1;
    do
    :: atomic { notified(0) }
#if TXS > 1
    :: atomic { notified(1) }
#endif
#if TXS > 2
    :: atomic { notified(2) }
#endif
#if TXS > 3
    :: atomic { notified(3) }
#endif
    :: atomic { !beating -> send_heartbeat() }
    :: atomic { beating -> take_heartbeat() }
    :: atomic { beating -> lose_heartbeat() }
    :: atomic { !fill.here && IS_GRANTED -> read(fill); fill.excused = heard & ~fill.snapshot }
    :: atomic { !fill.here && MAY_BORROW -> ask_shared_tier() }
    :: atomic { fill.here -> take_fill() }
    :: atomic { fill.here -> drop(fill) } /* the answer is lost */
    :: atomic { /* A request with the key. */
        IS_FRESH(entry) ->
        assert(VOUCHED == 0); /* no heartbeat has vouched for what outdates it */
        assert((AGAINST & aged) == 0)           /* and within MAX_STALENESS_S it ends, whatever fails */
       }
    od
}

/* Other workers, however many: any grant that was ever read may lie in the shared tier, however outdated. */
active proctype Others() {
    do
    :: atomic { IS_GRANTED -> read(shared) }
    od
}

/* MAX_STALENESS_S passes: what was sent or committed before is old. */
active proctype Clock() {
    do
    :: atomic { aged = committed; is_old = 1; b_old = beating; entry.old = entry.here; fill.old = fill.here }
    od
}

init {
    if :: was_bound = 1 :: skip fi
}

/* A key that stays revoked is refused in the end, as long as heartbeats are answered now and then. */
#ifdef LIVENESS
ltl refused_in_the_end {
    ([]<> is_answered && []<> !is_answered && <>[] (AGAINST != 0)) -> <>[] !IS_FRESH(entry)
}
#endif
