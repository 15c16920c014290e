/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/origin/health.h"
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include "lib/clock.h"
#include "lib/lock.h"
#include "lib/log.h"

enum {
	RANK_HEALTH = 62,
	DOWN_AFTER = 8,       /* errors in a row */
	OK_AFTER = 8,         /* good answers in a row */
};

/* A disk array's or a server's hiccup stays below the first; readers are told to be patient by timeout=, not by these. */
#define SHAKY_AFTER_NS (2 * NSEC_PER_SEC)
#define DOWN_AFTER_NS (5 * NSEC_PER_SEC)
#define PROBE_EVERY_NS NSEC_PER_SEC

const struct health_terms health_of_origin = { "origin", STAT_ORIGIN_WENT_SHAKY, STAT_ORIGIN_WENT_DOWN,
					       STAT_ORIGIN_CAME_BACK };

struct health {
	struct health_terms terms;   /* immutable */
	struct stats *stats;         /* not owned; immutable */
	struct lock lock;
	/* protected by lock */
	enum health_state state;
	unsigned errors, good;       /* in a row */
	uint64_t unanswered_ns;      /* when the first request since the last answer was sent; 0: there is none */
	void (*probe)(void *arg);
	void *probe_arg;
	bool is_probing;
	uint64_t probe_due_ns;
};

int health_new(const struct health_terms *terms, struct stats *stats, struct health **ret_health)
{
	struct health *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->terms = *terms;
	h->stats = stats;
	lock_init(&h->lock, "origin health", RANK_HEALTH);
	*ret_health = h;
	return 0;
}

void health_free(struct health *h)
{
	if (!h)
		return;
	lock_destroy(&h->lock);
	free(h);
}

const char *health_name(enum health_state state)
{
	static const char *const name[] = { [HEALTH_OK] = "ok", [HEALTH_SHAKY] = "shaky", [HEALTH_DOWN] = "down" };

	return name[state];
}

/* Does the error say that the origin failed, and not what the request was about, or our own want of something? */
static bool is_failure(int err)
{
	static const int answers[] = { ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, EXDEV, EACCES, EPERM, ESTALE, EINVAL,
				       ENOMEM, EMFILE, ENFILE };

	for (unsigned i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
		if (err == -answers[i])
			return false;
	}
	return err != 0;
}

/* Lock held. */
static void become(struct health *h, enum health_state state, const char *why)
{
	const enum stat_id counter[] = { [HEALTH_OK] = h->terms.came_back, [HEALTH_SHAKY] = h->terms.went_shaky,
					 [HEALTH_DOWN] = h->terms.went_down };

	if (state == h->state)
		return;
	if (h->stats && !(h->state == HEALTH_DOWN && state == HEALTH_SHAKY))
		stats_inc(h->stats, counter[state]);
	log_warn("%s: %s, was %s: %s", h->terms.name, health_name(state), health_name(h->state), why);
	h->state = state;
}

/* Lock held. */
static void listen(struct health *h, uint64_t now_ns)
{
	uint64_t silent_ns = h->unanswered_ns && now_ns > h->unanswered_ns ? now_ns - h->unanswered_ns : 0;

	if (silent_ns < SHAKY_AFTER_NS)
		return;
	h->good = 0;
	if (silent_ns >= DOWN_AFTER_NS)
		become(h, HEALTH_DOWN, "it does not answer");
	else if (h->state == HEALTH_OK)
		become(h, HEALTH_SHAKY, "it does not answer");
}

void health_asked(struct health *h, uint64_t now_ns)
{
	if (!h)
		return;
	lock_scope(&h->lock);
	listen(h, now_ns);
	if (!h->unanswered_ns)
		h->unanswered_ns = now_ns;
}

void health_answered(struct health *h, int err, uint64_t now_ns)
{
	if (!h)
		return;
	lock_scope(&h->lock);
	listen(h, now_ns);
	h->unanswered_ns = 0;
	if (is_failure(err)) {
		h->good = 0;
		h->errors++;
		if (h->errors >= DOWN_AFTER)
			become(h, HEALTH_DOWN, "it fails");
		else if (h->state == HEALTH_OK)
			become(h, HEALTH_SHAKY, "a request failed");
		return;
	}
	h->errors = 0;
	h->good++;
	if (h->state == HEALTH_DOWN)
		become(h, HEALTH_SHAKY, "it answers again");
	else if (h->state == HEALTH_SHAKY && h->good >= OK_AFTER)
		become(h, HEALTH_OK, "it answers well");
}

enum health_state health_state(struct health *h, uint64_t now_ns)
{
	void (*probe)(void *arg) = NULL;
	enum health_state state;
	void *arg;

	if (!h)
		return HEALTH_OK;
	lock_acquire(&h->lock);
	listen(h, now_ns);
	state = h->state;
	if (state == HEALTH_DOWN && !h->is_probing && now_ns >= h->probe_due_ns)
		probe = h->probe;
	h->is_probing |= probe != NULL;
	arg = h->probe_arg;
	lock_release(&h->lock);
	if (probe)
		probe(arg);
	return state;
}

void health_set_probe(struct health *h, void (*probe)(void *arg), void *arg)
{
	if (!h)
		return;
	lock_scope(&h->lock);
	h->probe = probe;
	h->probe_arg = arg;
}

void health_probed(struct health *h, uint64_t now_ns)
{
	if (!h)
		return;
	lock_scope(&h->lock);
	h->is_probing = false;
	h->probe_due_ns = now_ns + PROBE_EVERY_NS;
}
