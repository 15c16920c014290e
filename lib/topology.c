/* SPDX-License-Identifier: Apache-2.0 */
/* All of it is read from sysfs, so that a test can say what the machine looks like. */
#include "lib/topology.h"
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "lib/cleanup.h"

enum {
	TEXT_BYTES = 65536,             /* a list of 8192 processors, every other one, is shorter */
	LAYERS_MAX = 8,                 /* of block devices on each other */
	LONG_BITS = 8 * sizeof(unsigned long),
};

_Static_assert(TOPOLOGY_NODES_MAX <= TOPOLOGY_CPUS_MAX, "lists of nodes are parsed as lists of processors");
_Static_assert(TOPOLOGY_PLACES_MAX <= INT8_MAX, "a place fits");

/* ---- sets ---- */

bool cpus_has(const struct cpus *c, unsigned cpu)
{
	return cpu < TOPOLOGY_CPUS_MAX && c->bits[cpu / LONG_BITS] >> cpu % LONG_BITS & 1;
}

static void cpus_add(struct cpus *c, unsigned cpu)
{
	c->bits[cpu / LONG_BITS] |= 1UL << cpu % LONG_BITS;
}

bool cpus_is_empty(const struct cpus *c)
{
	for (size_t i = 0; i < sizeof(c->bits) / sizeof(c->bits[0]); i++) {
		if (c->bits[i])
			return false;
	}
	return true;
}

void cpus_parse(const char *list, struct cpus *ret)
{
	memset(ret, 0, sizeof(*ret));
	while (*list >= '0' && *list <= '9') {
		char *end;
		unsigned long first = strtoul(list, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		for (; first <= last && first < TOPOLOGY_CPUS_MAX; first++)
			cpus_add(ret, (unsigned)first);
		list = *end == ',' ? end + 1 : end;
	}
}

/* ---- sysfs ---- */

/* The text of a file below the root of sysfs; empty if it is not there. Owned by the caller, NULL without memory. */
__attribute__((format(printf, 2, 3)))
static char *read_text(const char *sysfs, const char *format, ...)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX], *text;
	ssize_t n;
	va_list ap;
	int at = snprintf(path, sizeof(path), "%s/", sysfs);

	va_start(ap, format);
	vsnprintf(path + at, sizeof(path) - (size_t)at, format, ap);
	va_end(ap);
	text = malloc(TEXT_BYTES);
	if (!text)
		return NULL;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, TEXT_BYTES - 1);
	text[n > 0 ? n : 0] = 0;
	return text;
}

static void read_set(const char *sysfs, const char *name, struct cpus *ret)
{
	_cleanup_free_ char *text = read_text(sysfs, "devices/system/%s", name);

	cpus_parse(text ? text : "", ret);
}

static uint64_t node_memory_bytes(const char *sysfs, unsigned node)
{
	_cleanup_free_ char *text = read_text(sysfs, "devices/system/node/node%u/meminfo", node);
	const char *at = text ? strstr(text, "MemTotal:") : NULL;

	return at ? strtoull(at + strlen("MemTotal:"), NULL, 10) * 1024 : 0;
}

/* Processors of a node that are online. */
static void node_cpus(const char *sysfs, unsigned node, const struct cpus *online, struct cpus *ret)
{
	_cleanup_free_ char *text = read_text(sysfs, "devices/system/node/node%u/cpulist", node);

	cpus_parse(text ? text : "", ret);
	for (size_t i = 0; i < sizeof(ret->bits) / sizeof(ret->bits[0]); i++)
		ret->bits[i] &= online->bits[i];
}

/* ---- this process ---- */

static void own_cpus(const struct topology_source *source, struct cpus *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (source->cpus)
		*ret = *source->cpus;
	else if (sched_getaffinity(0, sizeof(*ret), (cpu_set_t *)ret))
		memset(ret, 0xff, sizeof(*ret));
}

/* Nodes whose memory our cpuset grants. */
static void own_memory(const struct topology_source *source, struct cpus *ret)
{
	_cleanup_free_ char *text = NULL;
	const char *at = source->memory_nodes;

	if (!at) {
		text = read_text("/proc/self", "status");
		at = text ? strstr(text, "Mems_allowed_list:") : NULL;
		at = at ? at + strlen("Mems_allowed_list:") : NULL;
		at = at ? at + strspn(at, " \t") : NULL;
	}
	if (at)
		cpus_parse(at, ret);
	else
		memset(ret, 0xff, sizeof(*ret));
}

/* ---- places ---- */

static void be_one_place(struct topology *t)
{
	t->count = 1;
	memset(&t->place[0], 0, sizeof(t->place[0]));
	memset(t->place_of_cpu, 0, sizeof(t->place_of_cpu));
	memset(t->place_of_node, 0, sizeof(t->place_of_node));
}

/* The place nearest to a node that is none, by the kernel's table of distances: a column for each online node. */
static int nearest_place(const struct topology *t, unsigned node, const struct cpus *nodes)
{
	_cleanup_free_ char *text = read_text(t->sysfs, "devices/system/node/node%u/distance", node);
	const char *at = text ? text : "";
	unsigned long best = ULONG_MAX;
	int nearest = 0;

	for (unsigned other = 0; other < TOPOLOGY_NODES_MAX; other++) {
		unsigned long distance;
		char *end;

		if (!cpus_has(nodes, other))
			continue;
		distance = strtoul(at, &end, 10);
		if (end == at)
			break;
		at = end;
		if (t->place_of_node[other] < 0 || distance >= best)
			continue;
		best = distance;
		nearest = t->place_of_node[other];
	}
	return nearest;
}

static void add_cpus(struct topology *t, int place, const struct cpus *cpus, const struct cpus *own)
{
	for (unsigned cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
		if (!cpus_has(cpus, cpu))
			continue;
		t->place_of_cpu[cpu] = (int8_t)place;
		cpus_add(&t->place[place].cpus, cpu);
		if (cpus_has(own, cpu))
			cpus_add(&t->place[place].own, cpu);
	}
}

static bool has_several(const struct cpus *nodes)
{
	unsigned count = 0;

	for (unsigned node = 0; node < TOPOLOGY_NODES_MAX; node++)
		count += cpus_has(nodes, node);
	return count > 1;
}

/* What topology_new() gathers. */
struct survey {
	struct cpus nodes, with_memory, may_use, online, own, of_node;
};

static void find_places(struct topology *t, struct survey *v)
{
	for (unsigned node = 0; node < TOPOLOGY_NODES_MAX; node++) {
		if (!cpus_has(&v->nodes, node) || !cpus_has(&v->with_memory, node) || !cpus_has(&v->may_use, node) ||
		    t->count == TOPOLOGY_PLACES_MAX)
			continue;
		node_cpus(t->sysfs, node, &v->online, &v->of_node);
		if (cpus_is_empty(&v->of_node))
			continue;
		t->place[t->count].node = (int)node;
		t->place[t->count].memory_bytes = node_memory_bytes(t->sysfs, node);
		add_cpus(t, (int)t->count, &v->of_node, &v->own);
		t->place_of_node[node] = (int8_t)t->count++;
	}
}

static void find_others(struct topology *t, struct survey *v)
{
	int8_t place[TOPOLOGY_NODES_MAX];

	memcpy(place, t->place_of_node, sizeof(place));
	for (unsigned node = 0; node < TOPOLOGY_NODES_MAX; node++) {
		if (!cpus_has(&v->nodes, node) || t->place_of_node[node] >= 0)
			continue;
		place[node] = (int8_t)nearest_place(t, node, &v->nodes);
		node_cpus(t->sysfs, node, &v->online, &v->of_node);
		add_cpus(t, place[node], &v->of_node, &v->own);
	}
	memcpy(t->place_of_node, place, sizeof(place));
}

struct topology *topology_new(const struct topology_source *source, bool is_on)
{
	struct topology *t = calloc(1, sizeof(*t));
	_cleanup_free_ struct survey *v = calloc(1, sizeof(*v));

	if (!t || !v) {
		free(t);
		return NULL;
	}
	t->sysfs = source->sysfs ? source->sysfs : "/sys";
	memset(t->place_of_cpu, -1, sizeof(t->place_of_cpu));
	memset(t->place_of_node, -1, sizeof(t->place_of_node));
	read_set(t->sysfs, "node/online", &v->nodes);
	read_set(t->sysfs, "node/has_memory", &v->with_memory);
	read_set(t->sysfs, "cpu/online", &v->online);
	if (is_on) {
		own_memory(source, &v->may_use);
		own_cpus(source, &v->own);
		find_places(t, v);
	}
	if (t->count < 2) {
		int node = t->count ? t->place[0].node : has_several(&v->nodes) ? -1 : 0;

		be_one_place(t);
		t->place[0].node = node;
		return t;
	}
	find_others(t, v);
	return t;
}

void topology_free(struct topology *t)
{
	free(t);
}

int topology_of_cpu(const struct topology *t, unsigned cpu)
{
	return cpu < TOPOLOGY_CPUS_MAX ? t->place_of_cpu[cpu] : -1;
}

int topology_of_cpus(const struct topology *t, const struct cpus *cpus)
{
	int place = -1;

	if (t->count == 1)
		return 0;
	for (size_t i = 0; i < sizeof(cpus->bits) / sizeof(cpus->bits[0]); i++) {
		for (unsigned long left = cpus->bits[i]; left; left &= left - 1) {
			int here = t->place_of_cpu[i * LONG_BITS + (unsigned)__builtin_ctzl(left)];

			if (here < 0)
				continue;   /* offline: it does not run there */
			if (place >= 0 && here != place)
				return -1;
			place = here;
		}
	}
	return place;
}

const struct cpus *topology_pin(const struct topology *t, int place)
{
	if (t->count == 1 || place < 0 || cpus_is_empty(&t->place[place].own))
		return NULL;
	return &t->place[place].own;
}

/* ---- devices ---- */

static int place_at(const struct topology *t, const char *dir)
{
	char path[PATH_MAX];
	_cleanup_close_ int fd = -1;
	char text[16] = "";
	long node;

	if (snprintf(path, sizeof(path), "%s/numa_node", dir) >= (int)sizeof(path))
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return -1;
	node = strtol(text, NULL, 10);
	return node < 0 || node >= TOPOLOGY_NODES_MAX ? -1 : t->place_of_node[node];
}

/* The first directory from @dir upwards that knows its node; @dir is cut short. */
static int place_above(const struct topology *t, char *dir)
{
	for (;;) {
		int place = place_at(t, dir);
		char *slash = strrchr(dir, '/');

		if (place >= 0)
			return place;
		if (!slash || slash == dir)
			return -1;
		*slash = 0;
	}
}

static int place_of_dir(const struct topology *t, const char *dir, int layers);

static bool is_controller(const char *name)
{
	return !strncmp(name, "nvme", 4) && name[4] && !name[4 + strspn(name + 4, "0123456789")];
}

/* What all entries of @dir, or the NVMe controllers among them, lead to if it is the same place; -1 if not. */
static int place_of_all(const struct topology *t, const char *dir, bool only_controllers, int layers, bool *ret_any)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	int place = -1;

	*ret_any = false;
	while (d && (de = readdir(d))) {
		char path[PATH_MAX];
		int here;

		if (de->d_name[0] == '.' || (only_controllers && !is_controller(de->d_name)) ||
		    snprintf(path, sizeof(path), "%s/%s", dir, de->d_name) >= (int)sizeof(path))
			continue;
		here = place_of_dir(t, path, layers - 1);
		if (*ret_any && here != place)
			here = -1;
		*ret_any = true;
		place = here;
		if (here < 0)
			break;
	}
	if (d)
		closedir(d);
	return place;
}

/* @dir is a device's directory in sysfs, or a link to it. */
static int place_of_dir(const struct topology *t, const char *dir, int layers)
{
	char real[PATH_MAX], path[PATH_MAX + 16];
	bool has_any;
	int place;

	if (layers < 0 || !realpath(dir, real))
		return -1;
	snprintf(path, sizeof(path), "%s/partition", real);
	if (!access(path, F_OK))
		*strrchr(real, '/') = 0;
	snprintf(path, sizeof(path), "%s/slaves", real);
	place = place_of_all(t, path, false, layers, &has_any);
	if (has_any)
		return place;
	/* a namespace that several controllers may reach stands below a virtual subsystem, which has links to them */
	if (strstr(real, "/nvme-subsystem/")) {
		snprintf(path, sizeof(path), "%s/device", real);
		place = place_of_all(t, path, true, layers, &has_any);
		if (has_any)
			return place;
	}
	return place_above(t, real);
}

int topology_of_device(const struct topology *t, dev_t device)
{
	char path[PATH_MAX];

	if (t->count == 1)
		return 0;
	snprintf(path, sizeof(path), "%s/dev/block/%u:%u", t->sysfs, major(device), minor(device));
	return place_of_dir(t, path, LAYERS_MAX);
}
