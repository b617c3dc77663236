/* The claim protocol of the consumer, for spin (spinroot.com): every order of the steps of two invocations, with
 * faults at any of them. tests/model/check.py runs it; docs/guarantee.md says what it covers and what it leaves out.
 *
 * Two shards of a stream hold three messages, or four. Each shard's poller delivers a batch of them, one invocation
 * at a time, from its checkpoint on, until all of its messages are settled. A comment beside each step names the
 * function in src/ that takes it. Nothing here knows the text of a record, only its id and which content it has.
 *
 * What goes wrong is an assertion about a variable whose name is the rule's, as in tests/faults: see rules.py.
 *
 * Scenarios:  -DSAME (one record three times), -DOVERLAP (two records, in two orders), -DCONTENT (one id, two contents)
 * Bound:      -DFAULTS=n, for the whole run: crashes, answers that do not come, calls that fail, ...
 * Switches:   each takes one mechanism away; check.py lists them
 * -DACCOUNT_ONLY leaves the rules about claims out: does the account close without them?
 */

#ifndef FAULTS
#define FAULTS 2
#endif

/* Message k of shard s: the record's id, and its content. */
#ifdef OVERLAP
#define RECORDS 2
#define CONTENTS 1
#define LENGTH(s) 2
#define ID(s, k) (((s) + (k)) % 2)
#define IS(s, k) 0
#else
#define RECORDS 1
#define LENGTH(s) (2 - (s))
#define ID(s, k) 0
#ifdef CONTENT
#define CONTENTS 2
#define IS(s, k) ((s) == 1 || (k) == 1)
#else
#define CONTENTS 1
#define IS(s, k) 0
#endif
#endif

/* DynamoDB: one item for each record. A digest is the content's number plus one; 0 is no digest. */
mtype = { FREE, INPROGRESS, COMPLETED }
typedef Item { mtype status = FREE; byte owner; bool run_out; byte digest }
Item item[RECORDS];

/* Postgres: the rows of `records` with a record's id, what the first one says, and the conflicts that are kept. */
byte rows[RECORDS];
byte content[RECORDS];
bool kept[RECORDS * CONTENTS];

/* The event source mapping: how many messages of the shard are settled for it. */
byte checkpoint[2];

byte working[2];                   /* the owner drawn by the shard's invocation; 0: none is running */
byte abandoned[2 * RECORDS];       /* BulkIdempotency._holds: a claim of ours for which nobody works */
byte faults = FAULTS;
bool clocks_agree;

/* A request whose answer was given up and whose effect is still to come. */
mtype = { NOTHING, INSERT, PUT, DELETE, COMPLETE, COMMIT }
typedef Request { mtype is = NOTHING; byte owner; byte old; bool ahead; byte record; byte digest; byte start; byte shard; mtype mode[2] }
Request late;

/* What is known of each message of a batch. */
mtype = { UNASKED, CLAIMED, DUPLICATE, SUSPECT, LATER, RETRIED, UNSETTLED }

/* The account (tests/faults/account.py) and the rules (tests/faults/rules.py) */
bool lost, duplicated;
bool a_completed_record_was_forgotten, a_claim_was_released_by_somebody_else, a_valid_claim_was_taken_over;
bool stored_without_its_claim, an_orderly_end_left_a_claim_behind;

#define BROKEN(rule) rule = true; assert(!rule); rule = false
#ifdef ACCOUNT_ONLY
#define RULE(rule) skip
#else
#define RULE(rule) BROKEN(rule)
#endif

#define SETTLED(s, k) (k >= LENGTH(s) || kept[ID(s, k) * CONTENTS + IS(s, k)] \
    || (rows[ID(s, k)] > 0 && content[ID(s, k)] == IS(s, k)))
#define ALL_SETTLED (SETTLED(0, 0) && SETTLED(0, 1) && SETTLED(1, 0) && SETTLED(1, 1))
#define OVER (checkpoint[0] == LENGTH(0) && checkpoint[1] == LENGTH(1) \
    && working[0] == 0 && working[1] == 0 && late.is == NOTHING)

/* When nothing is left to do, nothing is lost; and that comes, if every process goes on and faults are few. */
inline account() {
    if
    :: OVER && !ALL_SETTLED -> BROKEN(lost)
    :: else
    fi
}
ltl not_blocked { <>[] OVER }

#define FAULT(happens) faults > 0 && (happens) -> faults--

#define ABANDONED(s, r) abandoned[(s) * RECORDS + (r)]
#if RECORDS == 2
#define STANDS(o) (item[0].owner == o || item[1].owner == o)
#define HELD_BACK(o) (abandoned[0] == o || abandoned[1] == o || abandoned[2] == o || abandoned[3] == o)
#else
#define STANDS(o) (item[0].owner == o)
#define HELD_BACK(o) (abandoned[0] == o || abandoned[1] == o)
#endif
/* secrets.token_hex: an owner that nobody else has */
#define IN_USE(o) (working[0] == o || working[1] == o || STANDS(o) || HELD_BACK(o) || late.owner == o || late.old == o)

inline draw(who) {
    who = 1;
    do
    :: IN_USE(who) -> who++
    :: else -> break
    od
}

inline free(key) { item[key].status = FREE; item[key].owner = 0; item[key].run_out = false; item[key].digest = 0 }

inline claim(key, who, what) {
    item[key].status = INPROGRESS; item[key].owner = who; item[key].run_out = false; item[key].digest = what
}

/* Layout.inserts: PartiQL INSERT fails when the key exists */
inline insert_claim(key, who, what) {
    if
    :: item[key].status == FREE -> claim(key, who, what)
    :: else
    fi
}

/* Layout.run_out and _Hold.abandoned. A clock that is ahead of the claim's sees that any claim has run out. */
#ifdef NEVER_RUN_OUT
#define STALE(r, old, fast) (old != 0 && item[r].owner == old)
#else
#define STALE(r, old, fast) (item[r].run_out || (fast) || (old != 0 && item[r].owner == old))
#endif
#ifdef TAKE_OVER_BLINDLY
#define MAY_TAKE_OVER(r, old, fast) true
#else
#define MAY_TAKE_OVER(r, old, fast) (item[r].status == FREE || (item[r].status == INPROGRESS && STALE(r, old, fast)))
#endif

#define VALID(r, o, old) (item[r].status == INPROGRESS && !item[r].run_out && item[r].owner != o && item[r].owner != old)
/* Layout.take_over: a conditional put, judged when it arrives */
inline take_over(key, who, what, instead, fast) {
    if
    :: MAY_TAKE_OVER(key, instead, fast) ->
        if
        :: VALID(key, who, instead) && !(fast) -> RULE(a_valid_claim_was_taken_over)
        :: else
        fi;
        claim(key, who, what)
    :: else
    fi
}

/* Layout.deletes: only the owner's own claim, and only while it is in progress */
#ifdef RELEASE_ANYBODYS
#define MAY_RELEASE(r, o) (item[r].status == INPROGRESS)
#elif defined(RELEASE_ANYTHING)
#define MAY_RELEASE(r, o) (item[r].status == COMPLETED || item[r].owner == o)
#else
#define MAY_RELEASE(r, o) (item[r].status == INPROGRESS && item[r].owner == o)
#endif
inline release_claim(key, who) {
    if
    :: MAY_RELEASE(key, who) ->
        if
        :: item[key].status == COMPLETED -> RULE(a_completed_record_was_forgotten)
        :: item[key].status == INPROGRESS && item[key].owner != who -> RULE(a_claim_was_released_by_somebody_else)
        :: else
        fi;
        free(key)
    :: else
    fi
}

/* Layout.completions: a plain put, whoever claimed it. The digest is of what this invocation has settled. */
inline complete_claim(key, what) {
#ifdef COMPLETE_KEEPS_DIGEST
    item[key].digest = (item[key].digest -> item[key].digest : what);
#else
    item[key].digest = what;
#endif
    item[key].status = COMPLETED; item[key].owner = 0; item[key].run_out = false
}

#ifdef NO_UNIQUE_KEY
#define NO_KEY true
#else
#define NO_KEY false
#endif

/* One message in the transaction of PostgresSink.store: INSERT ... ON CONFLICT DO NOTHING for what is claimed.
 * Where a row has the id, Postgres compares: the same is a duplicate, the other is kept. A suspect is only compared. */
inline store_one(how, key, says) {
    if
    :: how == CLAIMED && (rows[key] == 0 || NO_KEY) ->
        if
        :: rows[key] == 0 -> rows[key] = 1; content[key] = says
        :: else -> BROKEN(duplicated); kept[key * CONTENTS + says] = true    /* a second row; it says that */
        fi
    :: (how == CLAIMED && rows[key] > 0 && !NO_KEY) || how == SUSPECT || how == LATER ->
        if
        :: rows[key] > 0 && content[key] == says
        :: else -> kept[key * CONTENTS + says] = true
        fi
    :: else
    fi
}

inline commit(from, begin, first, second) {
    store_one(first, ID(from, begin), IS(from, begin));
    if
    :: second != UNASKED -> store_one(second, ID(from, (begin + 1)), IS(from, (begin + 1)))
    :: else
    fi
}

/* The batch that the shard's invocation has: message k of it, and whether both have one id (Decoding._decode). */
#define RECORD(k) ID(s, (checkpoint[s] + (k)))
#define DIGEST(k) (IS(s, (checkpoint[s] + (k))) + 1)
#define TWICE (n == 2 && RECORD(0) == RECORD(1))
#define OWN ABANDONED(s, RECORD(k))

/* ClaimRun._state: a completed item says that the record is done, unless its digest is another one */
#ifdef CLAIM_DECIDES
#define JUDGED(d) DUPLICATE
#else
#define JUDGED(d) (item[RECORD(k)].digest == 0 || item[RECORD(k)].digest == (d) -> DUPLICATE : SUSPECT)
#endif
#ifdef INSERT_SUSPECTS
#define MODE(k) (state[k] == SUSPECT -> CLAIMED : state[k])
#else
#define MODE(k) state[k]
#endif

inline known(what) {
    state[k] = what;
    if
    :: TWICE && what == CLAIMED -> state[1] = LATER
    :: TWICE && what == DUPLICATE -> state[1] = JUDGED(DIGEST(1))
    :: TWICE && what == SUSPECT -> state[1] = JUDGED(DIGEST(1))
    :: TWICE && what == RETRIED -> state[1] = RETRIED
    :: else
    fi
}

/* An answer of DynamoDB does not come, and the effect is still to come. */
inline on_its_way(what) {
    late.is = what; late.owner = owner; late.record = RECORD(k); late.digest = DIGEST(k)
}
inline arrived() {
    late.is = NOTHING; late.owner = 0; late.old = 0; late.ahead = false; late.record = 0; late.digest = 0;
    late.start = 0; late.shard = 0; late.mode[0] = UNASKED; late.mode[1] = UNASKED
}

/* Whoever stores a record holds its claim. A completion that comes late may have ended it: then the row is there. */
#define UNHELD(k) (MODE(k) == CLAIMED && item[RECORD(k)].owner != owner \
    && (item[RECORD(k)].status != COMPLETED || state[k] != CLAIMED))

#define NEXT(condition) \
    k++; \
    do \
    :: k < n && !((k == 0 || !TWICE) && (condition)) -> k++ \
    :: else -> break \
    od

proctype Shard(byte s)
{
    byte owner, n, k;
    bool ahead, excused;
    mtype state[2];

idle:
end_idle:
    atomic {
        if
        :: checkpoint[s] < LENGTH(s)
        :: FAULT(checkpoint[s] > 0) -> checkpoint[s] = 0    /* a checkpoint is lost, or a lease moves */
        fi;
        /* BulkIdempotency.claim draws an owner; the clock is the one of whatever machine this runs on. */
        draw(owner);
        working[s] = owner;
        if
        :: n = 1
        :: checkpoint[s] + 2 <= LENGTH(s) -> n = 2
        fi;
        if
        :: ahead = false
        :: !clocks_agree -> ahead = true
        fi;
        excused = false;
        state[0] = UNASKED; state[1] = UNASKED;
        k = 0
    }

    /* ---- BulkIdempotency.claim ---- */
ask:
    atomic {
        if
        :: k >= n -> goto store
        :: else
        fi;
#ifdef NO_CLAIM
        known(CLAIMED);
        goto asked;
#endif
        /* _Inquiry.make: INSERT; the item of what exists comes with the error. ClaimRun._judge says whose it is. */
        if
        :: item[RECORD(k)].status == FREE -> claim(RECORD(k), owner, DIGEST(k)); known(CLAIMED); OWN = 0
        :: item[RECORD(k)].status == INPROGRESS && item[RECORD(k)].owner == owner -> known(CLAIMED); OWN = 0
        :: item[RECORD(k)].status == INPROGRESS && item[RECORD(k)].owner != owner ->
            if
            :: STALE(RECORD(k), OWN, ahead) -> goto stale
            :: else -> known(RETRIED)                       /* claims.in_progress, whatever its digest */
            fi
        :: item[RECORD(k)].status == COMPLETED -> known(JUDGED(DIGEST(k)))
        :: FAULT(true) -> goto crashed
        :: FAULT(true) -> goto unanswered                                           /* it did not happen */
        :: FAULT(true) -> insert_claim(RECORD(k), owner, DIGEST(k)); goto unanswered   /* it did */
        :: FAULT(late.is == NOTHING) -> on_its_way(INSERT); goto unanswered          /* it will */
        fi;
        goto asked
    }
stale:  /* ClaimRun._take_over */
    atomic {
        if
        :: MAY_TAKE_OVER(RECORD(k), OWN, ahead) ->
            take_over(RECORD(k), owner, DIGEST(k), OWN, ahead); known(CLAIMED); OWN = 0; goto asked
        :: !MAY_TAKE_OVER(RECORD(k), OWN, ahead) -> goto ask                        /* another was faster */
        :: FAULT(true) -> goto crashed
        :: FAULT(true) -> goto unanswered
        :: FAULT(true) -> take_over(RECORD(k), owner, DIGEST(k), OWN, ahead); goto unanswered
        :: FAULT(late.is == NOTHING) -> on_its_way(PUT); late.old = OWN; late.ahead = ahead; goto unanswered
        fi
    }
unanswered:
    atomic {
        excused = true;
#ifdef LOST_CLAIM_IS_OURS
        known(CLAIMED); goto asked;
#endif
        if
        :: goto ask                         /* ClaimRun.decide: once more, before the deadline */
        :: known(RETRIED)                   /* claims.throttled */
        fi
    }
    atomic {                                /* BulkIdempotency.claim: what may stand there is deleted, once */
        if
        :: release_claim(RECORD(k), owner)
        :: FAULT(true) -> goto crashed
        :: FAULT(true) -> OWN = owner
        :: FAULT(true) -> release_claim(RECORD(k), owner); OWN = owner
        :: FAULT(late.is == NOTHING) -> on_its_way(DELETE); OWN = owner
        fi
    }
asked:
    atomic {
#ifdef COMPLETE_FIRST
        if
        :: state[k] == CLAIMED -> complete_claim(RECORD(k), DIGEST(k))
        :: else
        fi;
#endif
        NEXT(true);
        goto ask
    }

    /* ---- PostgresSink.store: one transaction. Locks make its effect one step, at COMMIT. ---- */
store:
    atomic {
        k = 0;
        if
        :: state[0] == CLAIMED || state[0] == SUSPECT || state[1] == CLAIMED || state[1] == SUSPECT
        :: else -> goto answer
        fi;
        if
        :: clocks_agree && (UNHELD(0) || UNHELD(1)) -> RULE(stored_without_its_claim)
        :: else
        fi;
        if
        :: commit(s, checkpoint[s], MODE(0), MODE(1))
        :: FAULT(true) -> goto crashed
        :: FAULT(true) -> goto not_stored
        :: FAULT(true) -> commit(s, checkpoint[s], MODE(0), MODE(1)); goto not_stored
        :: FAULT(late.is == NOTHING) ->
            late.is = COMMIT; late.shard = s; late.start = checkpoint[s]; late.mode[0] = MODE(0); late.mode[1] = MODE(1);
            goto not_stored
        /* PostgresSink._try: no time to find out about one; the rest is committed */
        :: FAULT(state[0] == CLAIMED && n == 1) -> state[0] = UNSETTLED
        :: FAULT(state[0] == CLAIMED && n == 2) ->
            commit(s, checkpoint[s], UNASKED, (TWICE -> UNASKED : MODE(1)));
            state[0] = UNSETTLED; state[1] = (TWICE -> RETRIED : state[1])
        :: FAULT(state[1] == CLAIMED) -> commit(s, checkpoint[s], MODE(0), UNASKED); state[1] = UNSETTLED
        fi;
        k = -1; NEXT(state[k] == CLAIMED || state[k] == UNSETTLED)
    }

    /* ---- BulkIdempotency.complete, and release of what is unsettled ---- */
done:
    atomic {
        if
        :: k >= n -> goto answer
        :: else
        fi;
#ifdef COMPLETE_UNSETTLED
        if
        :: state[k] == UNSETTLED -> complete_claim(RECORD(k), DIGEST(k)); goto completed
        :: else
        fi;
#endif
        if
        :: state[k] == CLAIMED -> complete_claim(RECORD(k), DIGEST(k))
        :: state[k] == UNSETTLED -> release_claim(RECORD(k), owner)
        :: FAULT(true) -> goto crashed
        :: FAULT(true) -> excused = true; goto undone
        :: FAULT(state[k] == CLAIMED) -> complete_claim(RECORD(k), DIGEST(k)); excused = true; goto undone
        :: FAULT(state[k] == UNSETTLED) -> release_claim(RECORD(k), owner); excused = true; goto undone
        :: FAULT(state[k] == CLAIMED && late.is == NOTHING) -> on_its_way(COMPLETE); excused = true; goto undone
        :: FAULT(state[k] == UNSETTLED && late.is == NOTHING) -> on_its_way(DELETE); excused = true; goto undone
        fi;
        goto completed
    }
undone:
    atomic {
        if
        :: goto done                        /* once more */
        :: state[k] == CLAIMED              /* given up: the claim runs out */
        :: state[k] == UNSETTLED -> OWN = owner
        fi
    }
completed:
    atomic { NEXT(state[k] == CLAIMED || state[k] == UNSETTLED); goto done }

    /* ---- Engine._settle: it was not stored, or nobody knows: BulkIdempotency.release ---- */
not_stored:
    atomic {
        k = -1; NEXT(state[k] == CLAIMED);
#ifdef NEVER_RELEASED
        k = n
#endif
    }
release:
    atomic {
        if
        :: k >= n -> goto failed
        :: else
        fi;
        if
        :: release_claim(RECORD(k), owner)
        :: FAULT(true) -> goto crashed
        :: FAULT(true) -> excused = true; goto unreleased
        :: FAULT(true) -> release_claim(RECORD(k), owner); excused = true; goto unreleased
        :: FAULT(late.is == NOTHING) -> on_its_way(DELETE); excused = true; goto unreleased
        fi;
        goto released
    }
unreleased:
    atomic {
        if
        :: goto release                     /* once more */
        :: OWN = owner                      /* given up: the next claim of this object takes it at once */
        fi
    }
released:
    atomic { NEXT(state[k] == CLAIMED); goto release }
failed: /* Batch.settle_rest: what has no result yet is retried */
    atomic {
        state[0] = (state[0] == DUPLICATE -> DUPLICATE : RETRIED);
        state[1] = (state[1] == DUPLICATE || n == 1 -> state[1] : RETRIED)
    }

    /* ---- the answer: batchItemFailures; Lambda delivers again from the lowest failure on ---- */
answer:
    atomic {
        if
        :: !excused && (item[RECORD(0)].owner == owner || (n == 2 && item[RECORD(1)].owner == owner)) ->
            RULE(an_orderly_end_left_a_claim_behind)
        :: else
        fi;
        k = 0;
        do
        :: k < n && state[k] != RETRIED && state[k] != UNSETTLED -> k++
        :: else -> break
        od;
#ifdef CHECKPOINT_TOO_FAR
        if
        :: k < n -> NEXT(state[k] == RETRIED || state[k] == UNSETTLED)
        :: else
        fi;
#endif
        if
        :: checkpoint[s] = checkpoint[s] + k
        :: FAULT(true)                      /* the answer is lost: the batch is delivered again */
        fi;
        goto ended
    }
crashed: /* with what the object held back in memory */
    atomic {
        ABANDONED(s, 0) = 0;
#if RECORDS == 2
        ABANDONED(s, 1) = 0;
#endif
    }
ended:
    atomic {
        working[s] = 0;
        owner = 0; n = 0; k = 0; ahead = false; excused = false; state[0] = UNASKED; state[1] = UNASKED;
        /* BulkIdempotency._forget_what_ran_out, and what was deleted or taken over by somebody else. */
        ABANDONED(s, 0) = (item[0].owner == ABANDONED(s, 0) -> ABANDONED(s, 0) : 0);
#if RECORDS == 2
        ABANDONED(s, 1) = (item[1].owner == ABANDONED(s, 1) -> ABANDONED(s, 1) : 0);
#endif
        account();
        goto idle
    }
}

/* A claim is valid for what is left of its invocation's time: it runs out when that is over, at some time. */
#define RUNS_OUT(r) item[r].status == INPROGRESS && !item[r].run_out \
    && item[r].owner != working[0] && item[r].owner != working[1]
/* The memory of the claims was too short. It is days, so no invocation and no request lasts as long. */
#define FORGOTTEN(r) item[r].status == COMPLETED && working[0] == 0 && working[1] == 0 && late.is == NOTHING
active proctype Time()
{
end_time:
    do
    :: atomic { RUNS_OUT(0) -> item[0].run_out = true }
    :: atomic { FAULT(FORGOTTEN(0)) -> free(0) }
#if RECORDS == 2
    :: atomic { RUNS_OUT(1) -> item[1].run_out = true }
    :: atomic { FAULT(FORGOTTEN(1)) -> free(1) }
#endif
    od
}

active proctype Network()
{
end_network:
    do
    :: atomic {
        late.is != NOTHING ->
        if
        :: late.is == INSERT -> insert_claim(late.record, late.owner, late.digest)
        :: late.is == PUT -> take_over(late.record, late.owner, late.digest, late.old, late.ahead)
        :: late.is == DELETE -> release_claim(late.record, late.owner)
        :: late.is == COMPLETE -> complete_claim(late.record, late.digest)
        :: late.is == COMMIT -> commit(late.shard, late.start, late.mode[0], late.mode[1])
        fi;
        arrived();
        account()
      }
    od
}

init
{
    atomic {
        arrived();
        if
        :: clocks_agree = true
        :: clocks_agree = false
        fi;
        run Shard(0);
        run Shard(1)
    }
}
