/* SPDX-License-Identifier: Apache-2.0 */
/* The recogniser over a real namespace: which files the loaders' indices are, which seeds their heads have. */
#include "prefetch/recognise.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/namespace.h"
#include "cache/store.h"
#include "lib/clock.h"
#include "lib/stats.h"
#include "prefetch/lists.h"
#include "tests/layer/layer.h"
#include "tests/unit/test.h"

enum { CLASSES = 3, EACH = 200, IMAGES = CLASSES * EACH, OTHERS = 5 };

struct fixture {
	struct stats *stats;
	struct origin *origin;
	struct store *store;
	struct ns *ns;
	struct recogniser *recogniser;
	struct waiter waiter;
	unsigned asked;
	struct recognise_job *job;                       /* the last answer; owned */
	struct recognise_unit unit[CLASSES];
	uint32_t image[IMAGES], all[IMAGES + OTHERS];    /* item numbers by the loader's index */
	uint32_t n_all;
};

static void done(void *arg, struct recognise_job *job)
{
	struct fixture *f = arg;

	recognise_job_free(f->job);
	f->job = job;
	waiter_done(&f->waiter, 0);
}

struct naming {
	struct fixture *f;
	const struct recognise_unit *u;
	uint32_t images;
};

static int name_add(void *arg, const char *name, const struct ns_attr *attr)
{
	struct naming *n = arg;
	uint32_t item = n->u->base + (uint32_t)(attr->ino - n->u->first);

	n->f->all[n->f->n_all++] = item;
	if (strstr(name, ".JPG"))
		n->f->image[n->images++] = item;
	return 0;
}

static int set_up(void **state)
{
	static const char *const classes[CLASSES] = { "b", "a", "a.b" };   /* made out of order */
	struct fixture *f = calloc(1, sizeof(*f));
	struct ns_config cfg = { .meta_ttl_ns = 3600 * NSEC_PER_SEC };
	struct waiter waiter = WAITER_INIT;
	struct naming naming = { .f = f };
	char name[64], msg[256];
	uint32_t base = 0;
	bool was_clean;
	int fd;

	f->waiter = waiter;
	scratch_make();
	for (int c = 0; c < CLASSES; c++) {
		for (int i = 0; i < EACH; i++) {
			snprintf(name, sizeof(name), "o/%s/img%04d.JPG", classes[c], (i * 7) % EACH);
			file_make(name, 1, 1);
		}
	}
	for (int i = 0; i < OTHERS; i++) {
		snprintf(name, sizeof(name), "o/a/note%d.txt", i);
		file_make(name, 1, 1);
	}
	mkdir(scratch_path("c"), 0700);
	fd = open(scratch_path("c"), O_RDONLY | O_DIRECTORY);
	if (stats_new(&f->stats) || origin_open(scratch_path("o"), f->stats, &f->origin, msg, sizeof(msg)) ||
	    store_open(fd, scratch_path("c"), "index", &f->store, &was_clean, msg, sizeof(msg)) ||
	    ns_open(f->store, f->origin, &cfg, f->stats, &f->ns) || recogniser_new(f->ns, NULL, done, f, &f->recogniser))
		return 1;
	close(fd);
	/* units as the prefetcher met them: b first; the index maps have a, a.b, b */
	for (int c = 0; c < CLASSES; c++) {
		struct ns_range range;
		struct ns_attr dir;

		if (ns_lookup(f->ns, NS_ROOT, classes[c], 0, &dir) || ns_list(f->ns, dir.ino, 0) || ns_ranges(f->ns, dir.ino, &range, 1) != 1)
			return 1;
		f->unit[c] = (struct recognise_unit){ dir.ino, range.first, (uint32_t)range.count, base };
		base += (uint32_t)range.count;
	}
	for (int c = 1; c <= CLASSES; c++) {
		naming.u = &f->unit[c % CLASSES];
		ns_readdir(f->ns, naming.u->dir, NS_ROOT, name_add, &naming);
	}
	*state = f;
	return naming.images != IMAGES || f->n_all != IMAGES + OTHERS;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	recogniser_free(f->recogniser);
	recognise_job_free(f->job);
	ns_close(f->ns);
	store_close(f->store);
	origin_close(f->origin);
	stats_free(f->stats);
	free(f);
	scratch_remove();
	return 0;
}

static struct recognise_job *job_new(struct fixture *f, uint32_t epoch, const struct family *known, enum recognise_depth depth)
{
	struct recognise_job *job = calloc(1, sizeof(*job));

	job->set = 1;
	job->epoch = epoch;
	job->unit = malloc(sizeof(f->unit));
	memcpy(job->unit, f->unit, sizeof(f->unit));
	job->unit_count = CLASSES;
	job->depth = depth;
	if (known)
		job->known = *known;
	return job;
}

static struct recognise_job *submit(struct fixture *f, struct recognise_job *job)
{
	recogniser_submit(f->recogniser, job);
	waiter_wait(&f->waiter, ++f->asked);
	return f->job;
}

/* Ask with @readers having opened @each entries: reader k's are k, k + readers, ... of @order. */
static struct recognise_job *ask_readers(struct fixture *f, const uint32_t *order, uint32_t readers, uint32_t each)
{
	struct recognise_job *job = job_new(f, 0, NULL, RECOGNISE_SMALL);

	job->stream_count = readers;
	for (uint32_t r = 0; r < readers; r++) {
		job->stream[r] = (struct recognise_stream){ .pid = 7 + r, .count = each };
		for (uint32_t k = 0; k < each; k++)
			job->stream[r].item[k] = order[r + k * readers];
	}
	return submit(f, job);
}

/* Ask with reader @pid having opened the entries start, start + stride, ... of @order (or nothing, if NULL). */
static struct recognise_job *ask(struct fixture *f, const uint32_t *order, uint32_t start, uint32_t stride, uint32_t epoch,
				 const struct family *known, enum recognise_depth depth)
{
	struct recognise_job *job = job_new(f, epoch, known, depth);

	if (order) {
		job->stream_count = 1;
		job->stream[0] = (struct recognise_stream){ .pid = 7, .count = SEARCH_HEAD_MAX };
		for (uint32_t k = 0; k < SEARCH_HEAD_MAX; k++)
			job->stream[0].item[k] = order[start + k * stride];
	}
	return submit(f, job);
}

static void shuffled(const uint32_t *map, uint32_t n, enum shuffle_kind kind, uint64_t seed, uint64_t skip, uint32_t *ret)
{
	struct shuffle s = { kind, seed, skip };

	memcpy(ret, map, n * sizeof(*ret));
	shuffle_apply(&s, ret, n);
}

static void assert_order(const struct recognise_job *job, const uint32_t *order, uint32_t n)
{
	assert_true(job->is_found);
	assert_int_equal(job->order->count, n);
	assert_memory_equal(job->order->item, order, n * sizeof(*order));
}

/* manual_seed(42): epoch 0 from its head under the image filter, the epochs after it from nothing. */
static void the_default_generator_leads_through_all_epochs(void **state)
{
	static const uint32_t seeds[] = { 787846414u, 2563451924u, 429389014u };
	struct fixture *f = *state;
	uint32_t order[IMAGES];
	struct family known;

	shuffled(f->image, IMAGES, SHUFFLE_TORCH, seeds[0], 0, order);
	assert_order(ask(f, order, 0, 1, 0, NULL, RECOGNISE_USUAL), order, IMAGES);
	known = f->job->family;
	assert_int_equal(known.main_seed, 42);
	for (uint32_t e = 1; e < 3; e++) {
		shuffled(f->image, IMAGES, SHUFFLE_TORCH, seeds[e], 0, order);
		assert_order(ask(f, NULL, 0, 1, e, &known, RECOGNISE_USUAL), order, IMAGES);
	}
	/* with a validation loader the words are six apart: the head corrects the guess */
	known.distance = 0;
	shuffled(f->image, IMAGES, SHUFFLE_TORCH, 1650906866u, 0, order);   /* of manual_seed(0): no continuation */
	assert_false(ask(f, order, 0, 1, 1, &known, RECOGNISE_USUAL)->is_found && f->job->family.main_seed == 42);
}

/* All files, no filter: the other index map. */
static void lists_of_all_files_are_mapped_too(void **state)
{
	struct fixture *f = *state;
	uint32_t order[IMAGES + OTHERS];

	shuffled(f->all, f->n_all, SHUFFLE_TORCH, 5, 0, order);
	assert_order(ask(f, order, 0, 1, 0, NULL, RECOGNISE_USUAL), order, f->n_all);
	assert_true(ask(f, f->all, 0, 1, 0, NULL, RECOGNISE_USUAL)->is_found);   /* both maps begin alike */
	assert_string_equal(f->job->order->text, "sequential");
}

static void ranks_and_generators_and_lists(void **state)
{
	struct fixture *f = *state;
	uint32_t order[IMAGES];
	struct family known;

	shuffled(f->image, IMAGES, SHUFFLE_TORCH, 3, 0, order);
	assert_order(ask(f, order, 2, 4, 3, NULL, RECOGNISE_USUAL), order, IMAGES);
	assert_int_equal(f->job->family.stride, 4);
	known = f->job->family;
	shuffled(f->image, IMAGES, SHUFFLE_TORCH, 4, 0, order);
	assert_order(ask(f, NULL, 0, 1, 4, &known, RECOGNISE_USUAL), order, IMAGES);
	assert_int_equal(f->job->order->stride, 4);

	shuffled(f->image, IMAGES, SHUFFLE_TORCH, 67280421310721ULL, 2, order);
	assert_order(ask(f, order, 0, 1, 0, NULL, RECOGNISE_USUAL), order, IMAGES);
	known = f->job->family;
	shuffled(f->image, IMAGES, SHUFFLE_TORCH, 67280421310721ULL, 2 + 2 * IMAGES, order);
	assert_order(ask(f, NULL, 0, 1, 1, &known, RECOGNISE_USUAL), order, IMAGES);
	/* persistent workers draw their seed once: the head tells */
	shuffled(f->image, IMAGES, SHUFFLE_TORCH, 67280421310721ULL, 2 + 2 * IMAGES - 2, order);
	assert_order(ask(f, order, 0, 1, 1, &known, RECOGNISE_USUAL), order, IMAGES);

	for (int kind = SHUFFLE_NUMPY_STATE; kind < SHUFFLE_KINDS; kind++) {
		uint64_t seed = kind == SHUFFLE_STD || kind == SHUFFLE_STD_OLD ? 524287 : 17;

		shuffled(f->image, IMAGES, (enum shuffle_kind)kind, seed, 0, order);
		assert_false(ask(f, order, 0, 1, 0, NULL, RECOGNISE_USUAL)->is_found);
		assert_order(ask(f, order, 0, 1, 0, NULL, RECOGNISE_SMALL), order, IMAGES);
	}
}

/* Four workers of one shuffled list of shards, of which each has opened two: too few for any one of them. */
static void readers_of_one_list_are_evidence_together(void **state)
{
	static const enum shuffle_kind kinds[] = { SHUFFLE_NUMPY_STATE, SHUFFLE_NUMPY_RNG, SHUFFLE_PYTHON };
	struct fixture *f = *state;
	uint32_t order[IMAGES];

	for (size_t k = 0; k < 3; k++) {
		shuffled(f->image, IMAGES, kinds[k], 31, 0, order);
		assert_order(ask_readers(f, order, 4, 2), order, IMAGES);
		assert_int_equal(f->job->order->stride, 4);
		assert_int_equal(f->job->family.shuffle.seed, 31);
		assert_false(ask_readers(f, order, 4, 1)->is_found);
	}
}

/* WebDataset: each of three workers shuffles the shards that are its own. */
static void shares_that_are_shuffled_by_themselves(void **state)
{
	struct fixture *f = *state;
	uint32_t order[IMAGES], own[IMAGES / 3];

	for (uint32_t l = 0; l < 3; l++) {
		for (uint32_t i = 0; i < IMAGES / 3; i++)
			own[i] = f->image[l + 3 * i];
		shuffled(own, IMAGES / 3, SHUFFLE_BUFFER, 12, 0, own);
		for (uint32_t i = 0; i < IMAGES / 3; i++)
			order[l + 3 * i] = own[i];
	}
	assert_order(ask_readers(f, order, 3, 3), order, IMAGES);
	assert_string_equal(f->job->order->text, "webdataset seed 12, shares 3");
}

/* random.seed(5) once, then random.shuffle(files) or rng.permutation(n) before each epoch; or seeded anew, in place (DLIO). */
static void generators_that_go_on_are_followed(void **state)
{
	struct shuffle seed = { SHUFFLE_PYTHON, 5, 0 };
	struct fixture *f = *state;
	struct shuffle_rng *g = shuffle_rng_new(&seed);
	uint32_t order[IMAGES], fresh[IMAGES];
	struct family known;

	memcpy(order, f->image, sizeof(order));
	shuffle_rng_apply(g, order, IMAGES);
	assert_order(ask(f, order, 0, 1, 0, NULL, RECOGNISE_SMALL), order, IMAGES);
	known = f->job->family;
	memcpy(fresh, f->image, sizeof(fresh));
	for (uint32_t e = 1; e < 4; e++) {
		shuffle_rng_apply(g, order, IMAGES);
		assert_order(ask(f, e == 1 ? order : NULL, 0, 1, e, &known, RECOGNISE_USUAL), order, IMAGES);
		known = f->job->family;
	}
	assert_int_equal(known.kind, FAMILY_STREAM_IN_PLACE);
	free(g);

	seed = (struct shuffle){ SHUFFLE_NUMPY_RNG, 5, 0 };
	g = shuffle_rng_new(&seed);
	shuffle_rng_apply(g, fresh, IMAGES);
	assert_order(ask(f, fresh, 0, 1, 0, NULL, RECOGNISE_SMALL), fresh, IMAGES);
	known = f->job->family;
	memcpy(fresh, f->image, sizeof(fresh));
	shuffle_rng_apply(g, fresh, IMAGES);
	assert_order(ask(f, fresh, 0, 1, 1, &known, RECOGNISE_USUAL), fresh, IMAGES);
	assert_int_equal(f->job->family.kind, FAMILY_STREAM);
	free(g);

	shuffled(f->image, IMAGES, SHUFFLE_NUMPY_STATE, 123, 0, order);
	assert_order(ask(f, order, 0, 1, 0, NULL, RECOGNISE_SMALL), order, IMAGES);
	known = f->job->family;
	shuffled(order, IMAGES, SHUFFLE_NUMPY_STATE, 124, 0, order);
	assert_order(ask(f, order, 0, 1, 1, &known, RECOGNISE_USUAL), order, IMAGES);
	assert_int_equal(f->job->family.kind, FAMILY_CUMULATIVE);
}

/* The list is shuffled from the same seed each epoch: learnt in the second, expected in the third. */
static void a_seed_that_stays_is_expected_to_stay(void **state)
{
	struct fixture *f = *state;
	uint32_t order[IMAGES];
	struct family known;

	shuffled(f->image, IMAGES, SHUFFLE_PYTHON, 5, 0, order);
	assert_order(ask(f, order, 0, 1, 0, NULL, RECOGNISE_SMALL), order, IMAGES);
	known = f->job->family;
	assert_false(known.is_constant);
	assert_order(ask(f, order, 0, 1, 1, &known, RECOGNISE_USUAL), order, IMAGES);
	known = f->job->family;
	assert_true(known.is_constant);
	assert_order(ask(f, NULL, 0, 1, 2, &known, RECOGNISE_USUAL), order, IMAGES);
	known = f->job->family;
	/* and if it goes on after all */
	shuffled(f->image, IMAGES, SHUFFLE_PYTHON, 6, 0, order);
	assert_order(ask(f, order, 0, 1, 3, &known, RECOGNISE_USUAL), order, IMAGES);
	assert_false(f->job->family.is_constant);
}

/* sorted(glob("*" "/" "*")): "a.b/..." comes before "a/...". */
static void lists_sorted_by_the_whole_path(void **state)
{
	struct fixture *f = *state;
	uint32_t path[IMAGES + OTHERS], order[IMAGES + OTHERS], in_a = EACH + OTHERS;

	memcpy(path, f->all + in_a, EACH * sizeof(*path));              /* a.b */
	memcpy(path + EACH, f->all, in_a * sizeof(*path));              /* a */
	memcpy(path + EACH + in_a, f->all + in_a + EACH, EACH * sizeof(*path));
	shuffled(path, f->n_all, SHUFFLE_TORCH, 9, 0, order);
	assert_order(ask(f, order, 0, 1, 0, NULL, RECOGNISE_USUAL), order, f->n_all);
}

/* An image in b and its mask in a.b, read one after the other: as many of both. */
static void samples_of_two_files(void **state)
{
	struct fixture *f = *state;
	uint32_t a[EACH], order[2 * EACH];
	struct recognise_job *job = job_new(f, 0, NULL, RECOGNISE_USUAL);

	/* without a, whose count is another: a.b follows b */
	job->unit[1] = job->unit[2];
	job->unit[1].base = EACH;
	job->unit_count = CLASSES - 1;
	for (uint32_t i = 0; i < EACH; i++)
		a[i] = i;
	shuffled(a, EACH, SHUFFLE_TORCH, 3, 0, a);
	job->stream_count = 1;
	job->stream[0] = (struct recognise_stream){ .pid = 7, .count = SEARCH_HEAD_MAX };
	for (uint32_t i = 0; i < EACH; i++) {
		order[2 * i] = f->image[EACH + a[i]] - f->unit[2].base + EACH;
		order[2 * i + 1] = f->image[2 * EACH + a[i]];
	}
	memcpy(job->stream[0].item, order, sizeof(job->stream[0].item));
	assert_order(submit(f, job), order, 2 * EACH);
	assert_int_equal(f->job->family.map, MAP_SAMPLES);
}

/* MosaicML Streaming opens the first shards of an epoch in no exact order. */
static void streaming_opens_the_first_shards_first(void **state)
{
	struct fixture *f = *state;
	uint32_t order[IMAGES], mixed[IMAGES];

	shuffled(f->image, IMAGES, SHUFFLE_NUMPY_RNG, 9176, 0, order);
	shuffled(order, IMAGES, SHUFFLE_NUMPY_RNG, 9178, 0, order);
	memcpy(mixed, order, sizeof(mixed));
	for (uint32_t i = 0; i < 40; i++)
		mixed[i] = order[(i * 7 + 3) % 40];
	assert_order(ask_readers(f, mixed, 4, 8), order, IMAGES);
	assert_string_equal(f->job->order->text, "streaming seed 9178");
}

/*
 * Accesses with replacement, weighted ones and shuffles outside the zoo: never recognised, however hard it is tried.
 * NOISE_RUNS=1000 for the long form.
 */
static void noise_is_not_recognised(void **state)
{
	struct fixture *f = *state;
	uint64_t random = 11;
	uint32_t order[IMAGES];
	const char *runs = getenv("NOISE_RUNS");

	for (int run = 0; run < (runs ? atoi(runs) : 20); run++) {
		memcpy(order, f->image, sizeof(order));
		for (uint32_t i = 0; i + 1 < IMAGES; i++) {
			uint32_t j = (uint32_t)(test_random(&random) % IMAGES), t = order[i];

			if (run % 3 == 0)      /* a shuffle */
				j = i + j % (IMAGES - i);
			else if (run % 3 == 1) /* weights: a tenth is half of what is read */
				j = test_random(&random) % 2 ? j / 10 : j;
			order[i] = run % 3 ? f->image[j] : order[j];
			if (run % 3 == 0)
				order[j] = t;
		}
		/* the searches that take a second: at the end of every tenth run in the short form */
		if (ask(f, order, 0, 1, 0, NULL, runs || run % 10 == 9 ? RECOGNISE_SMALL : RECOGNISE_USUAL)->is_found)
			fail_msg("run %d was taken for %s", run, f->job->order->text);
	}
}

/* Four readers of a list that nobody's seed shuffled. */
static void noise_is_no_list(void **state)
{
	uint64_t random = 17;

	(void)state;
	for (int run = 0; run < 20; run++) {
		struct lists_space space = { SHUFFLE_NUMPY_RNG, 0, 200, run % 2 };
		struct lists_found found;
		struct head head[4];

		for (int h = 0; h < 4; h++) {
			head[h] = (struct head){ .n = 600, .count = 3 + (uint32_t)run % 4 };
			for (uint32_t k = 0; k < head[h].count; k++)
				head[h].index[k] = (uint32_t)(test_random(&random) % 600);
		}
		assert_false(lists_search(head, 4, &space, NULL, &found));
	}
}

static void plans_are_parsed_strictly(void **state)
{
	static const char *const bad[] = {
		"", "torch", "torch-random", "torch-random seed", "torch-random seed=", "torch-random seed=-1", "torch-random seed=1x",
		"torch-random seed=1 sed=2", "torch-distributed world=0", "torch-distributed world=2 rank=2", "torch-distributed world=99999",
		"torch-random seed=1 epoch=99999999", "numpy", "list",
	};
	struct fixture *f = *state;
	struct family family;
	uint32_t order[IMAGES];
	char msg[256];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		*msg = 0;
		if (family_parse(bad[i], &family, msg, sizeof(msg)) != -EINVAL || !*msg || strchr(msg, '\n'))
			fail_msg("'%s': '%s'", bad[i], msg);
	}
	assert_int_equal(family_parse("torch-random seed=42 epoch=1", &family, msg, sizeof(msg)), 0);
	shuffled(f->image, IMAGES, SHUFFLE_TORCH, 2563451924u, 0, order);
	assert_order(ask(f, NULL, 0, 1, 0, &family, RECOGNISE_USUAL), order, IMAGES);
	assert_int_equal(f->job->order->by, PREDICTOR_PLAN);
	assert_int_equal(family_parse("torch-distributed seed=1 epoch=2 world=2 rank=1", &family, msg, sizeof(msg)), 0);
	shuffled(f->image, IMAGES, SHUFFLE_TORCH, 3, 0, order);
	assert_order(ask(f, NULL, 0, 1, 0, &family, RECOGNISE_USUAL), order, IMAGES);
	assert_int_equal(family_parse("dali", &family, msg, sizeof(msg)), 0);
	shuffled(f->image, IMAGES, SHUFFLE_STD, 524287, 0, order);
	assert_order(ask(f, NULL, 0, 1, 0, &family, RECOGNISE_USUAL), order, IMAGES);
	/* DALI shuffles on: the next epoch from this one's list, with the next seed */
	shuffled(order, IMAGES, SHUFFLE_STD, 524288, 0, order);
	assert_order(ask(f, NULL, 0, 1, 1, &f->job->family, RECOGNISE_USUAL), order, IMAGES);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(the_default_generator_leads_through_all_epochs),
		CASE(lists_of_all_files_are_mapped_too),
		CASE(ranks_and_generators_and_lists),
		CASE(readers_of_one_list_are_evidence_together),
		CASE(shares_that_are_shuffled_by_themselves),
		CASE(generators_that_go_on_are_followed),
		CASE(a_seed_that_stays_is_expected_to_stay),
		CASE(lists_sorted_by_the_whole_path),
		CASE(samples_of_two_files),
		CASE(streaming_opens_the_first_shards_first),
		CASE(noise_is_not_recognised),
		cmocka_unit_test(noise_is_no_list),
		CASE(plans_are_parsed_strictly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
