/* SPDX-License-Identifier: Apache-2.0 */
/* Trees as sysfs shows them, made in a scratch directory: machines that this one is not. */
#include "lib/topology.h"
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/gpus.h"
#include "lib/locator.h"
#include "tests/unit/test.h"

static char root[] = "/tmp/hopper-topology.XXXXXX";

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	(void)state;
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(root + strlen(root) - 6, "XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

/* "a/b/c" below the root, with all directories above. */
static void path_of(const char *name, char *path, size_t size)
{
	snprintf(path, size, "%s/%s", root, name);
	for (char *p = path + strlen(root) + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		assert_true(!mkdir(path, 0755) || errno == EEXIST);
		*p = '/';
	}
}

static void put(const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	path_of(name, path, sizeof(path));
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void put_link(const char *name, const char *target)
{
	char path[PATH_MAX];

	path_of(name, path, sizeof(path));
	assert_int_equal(symlink(target, path), 0);
}

static void put_node(unsigned node, const char *cpus, const char *distances)
{
	char name[128], text[128];

	snprintf(name, sizeof(name), "devices/system/node/node%u/cpulist", node);
	snprintf(text, sizeof(text), "%s\n", cpus);
	put(name, text);
	snprintf(name, sizeof(name), "devices/system/node/node%u/distance", node);
	put(name, distances);
	snprintf(name, sizeof(name), "devices/system/node/node%u/meminfo", node);
	snprintf(text, sizeof(text), "Node %u MemTotal:       %u kB\nNode %u MemFree: 5 kB\n", node, 1024 * (node + 1), node);
	put(name, text);
}

static void put_machine(const char *nodes, const char *with_memory, const char *cpus)
{
	put("devices/system/node/online", nodes);
	put("devices/system/node/has_memory", with_memory);
	put("devices/system/cpu/online", cpus);
}

static void put_two_nodes(void)
{
	put_machine("0-1\n", "0-1\n", "0-3\n");
	put_node(0, "0,2", "10 21\n");
	put_node(1, "1,3", "21 10\n");
}

static struct topology *read_tree(const char *cpus, const char *memory_nodes)
{
	static struct cpus own;
	struct topology_source source = { root, &own, memory_nodes };
	struct topology *t;

	cpus_parse(cpus, &own);
	t = topology_new(&source, true);
	assert_non_null(t);
	return t;
}

static void two_nodes_are_two_places(void **state)
{
	struct topology *t;
	struct cpus some;

	(void)state;
	put_two_nodes();
	t = read_tree("0-3", "0-1");
	assert_int_equal(t->count, 2);
	assert_int_equal(t->place[1].node, 1);
	assert_int_equal(t->place[1].memory_bytes, 2 << 20);
	assert_int_equal(topology_of_cpu(t, 0), 0);
	assert_int_equal(topology_of_cpu(t, 3), 1);
	assert_int_equal(topology_of_cpu(t, 4), -1);
	assert_int_equal(topology_of_cpu(t, 1u << 30), -1);
	cpus_parse("1,3", &some);
	assert_int_equal(topology_of_cpus(t, &some), 1);
	assert_memory_equal(topology_pin(t, 1), &some, sizeof(some));
	cpus_parse("1,3,77", &some);   /* 77 is not online: what may run there runs at 1 */
	assert_int_equal(topology_of_cpus(t, &some), 1);
	cpus_parse("0-3", &some);
	assert_int_equal(topology_of_cpus(t, &some), -1);
	assert_null(topology_pin(t, -1));
	topology_free(t);
}

static void memoryless_node_belongs_to_the_nearest_place(void **state)
{
	struct topology *t;

	(void)state;
	put_machine("0,2,5\n", "0,5\n", "0-5\n");
	put_node(0, "0-1", "10 30 20\n");
	put_node(2, "2-3", "30 10 15\n");
	put_node(5, "4-5", "20 15 10\n");
	put("devices/pci0/nvme0/numa_node", "2\n");
	put_link("dev/block/259:0", "../../devices/pci0/nvme0");
	t = read_tree("0-5", "0-5");
	assert_int_equal(t->count, 2);
	assert_int_equal(t->place[1].node, 5);
	assert_int_equal(topology_of_cpu(t, 2), 1);
	assert_int_equal(topology_of_cpu(t, 5), 1);
	assert_true(cpus_has(topology_pin(t, 1), 3));
	assert_int_equal(topology_of_device(t, makedev(259, 0)), 1);
	topology_free(t);
}

static void memory_without_processors_is_no_place(void **state)
{
	struct topology *t;

	(void)state;
	put_machine("0-2\n", "0-2\n", "0-3\n");
	put_node(0, "0-1", "10 20 40\n");
	put_node(1, "2-3", "20 10 40\n");
	put_node(2, "", "40 40 10\n");   /* a GPU's */
	t = read_tree("0-3", "0-2");
	assert_int_equal(t->count, 2);
	assert_int_equal(t->place[1].node, 1);
	topology_free(t);
}

static void offline_processors_do_not_count(void **state)
{
	struct topology *t;

	(void)state;
	put_two_nodes();
	put("devices/system/cpu/online", "0-1\n");   /* 2 and 3 are off, whatever the nodes' lists say */
	t = read_tree("0-3", "0-1");
	assert_int_equal(t->count, 2);
	assert_int_equal(topology_of_cpu(t, 3), -1);
	assert_false(cpus_has(topology_pin(t, 1), 3));
	topology_free(t);

	put("devices/system/cpu/online", "0,2\n");   /* all of node 1 */
	t = read_tree("0-3", "0-1");
	assert_int_equal(t->count, 1);
	assert_null(topology_pin(t, 0));
	topology_free(t);
}

static void our_own_limits_are_kept(void **state)
{
	struct topology *t;

	(void)state;
	put_two_nodes();
	/* processors of one node only: readers may be at both, our threads are not pinned where they cannot go */
	t = read_tree("0,2", "0-1");
	assert_int_equal(t->count, 2);
	assert_int_equal(topology_of_cpu(t, 1), 1);
	assert_true(cpus_has(topology_pin(t, 0), 2));
	assert_null(topology_pin(t, 1));
	topology_free(t);
	/* memory of one node only */
	t = read_tree("0-3", "1");
	assert_int_equal(t->count, 1);
	assert_int_equal(t->place[0].node, 1);
	topology_free(t);
}

static void without_nodes_it_is_one_place(void **state)
{
	struct topology *t = read_tree("0-3", "0");

	(void)state;
	assert_int_equal(t->count, 1);
	assert_int_equal(t->place[0].node, 0);
	assert_int_equal(topology_of_cpu(t, 3), 0);
	assert_int_equal(topology_of_device(t, makedev(8, 1)), 0);
	assert_null(topology_pin(t, 0));
	topology_free(t);
}

static void off_is_one_place(void **state)
{
	struct topology_source source = { root, NULL, NULL };
	struct topology *t;

	(void)state;
	put_two_nodes();
	t = topology_new(&source, false);
	assert_int_equal(t->count, 1);
	assert_int_equal(t->place[0].node, -1);
	assert_int_equal(topology_of_cpu(t, 3), 0);
	topology_free(t);
}

static void this_machine_has_a_place(void **state)
{
	struct topology_source source = { NULL, NULL, NULL };
	struct topology *t = topology_new(&source, true);

	(void)state;
	assert_true(t->count >= 1);
	assert_true(topology_of_cpu(t, (unsigned)sched_getcpu()) >= 0);
	topology_free(t);
}

static void devices_are_found_at_their_controllers(void **state)
{
	struct topology *t;

	(void)state;
	put_two_nodes();
	put("devices/pci0/0000:20/numa_node", "0\n");
	put("devices/pci0/0000:20/nvme/nvme0/nvme0n1/size", "1\n");
	put("devices/pci0/0000:20/nvme/nvme0/nvme0n1/nvme0n1p1/partition", "1\n");
	put("devices/pci1/0000:40/numa_node", "1\n");
	put("devices/pci1/0000:40/nvme/nvme1/numa_node", "-1\n");   /* it does not know; its bus does */
	put("devices/pci1/0000:40/nvme/nvme1/nvme1n1/nvme1n1p1/partition", "1\n");
	put_link("dev/block/259:0", "../../devices/pci0/0000:20/nvme/nvme0/nvme0n1");
	put_link("dev/block/259:1", "../../devices/pci0/0000:20/nvme/nvme0/nvme0n1/nvme0n1p1");
	put_link("dev/block/259:2", "../../devices/pci1/0000:40/nvme/nvme1/nvme1n1/nvme1n1p1");
	/* a logical volume on a partition; a stripe over both disks, with a partition of its own */
	put_link("devices/virtual/block/dm-0/slaves/nvme1n1p1", "../../../../pci1/0000:40/nvme/nvme1/nvme1n1/nvme1n1p1");
	put_link("dev/block/253:0", "../../devices/virtual/block/dm-0");
	put_link("devices/virtual/block/md0/slaves/nvme0n1", "../../../../pci0/0000:20/nvme/nvme0/nvme0n1");
	put_link("devices/virtual/block/md0/slaves/nvme1n1p1", "../../../../pci1/0000:40/nvme/nvme1/nvme1n1/nvme1n1p1");
	put("devices/virtual/block/md0/md0p1/partition", "1\n");
	put_link("dev/block/9:0", "../../devices/virtual/block/md0");
	put_link("dev/block/259:9", "../../devices/virtual/block/md0/md0p1");
	/* a namespace below its subsystem, with one controller */
	put("devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n2/size", "1\n");
	put_link("devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n2/device", "../../nvme-subsys1");
	put_link("devices/virtual/nvme-subsystem/nvme-subsys1/nvme1", "../../../pci1/0000:40/nvme/nvme1");
	put_link("dev/block/259:4", "../../devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n2");
	put("devices/virtual/block/loop0/size", "1\n");
	put_link("dev/block/7:0", "../../devices/virtual/block/loop0");
	t = read_tree("0-3", "0-1");
	assert_int_equal(topology_of_device(t, makedev(259, 0)), 0);
	assert_int_equal(topology_of_device(t, makedev(259, 1)), 0);
	assert_int_equal(topology_of_device(t, makedev(259, 2)), 1);
	assert_int_equal(topology_of_device(t, makedev(253, 0)), 1);
	assert_int_equal(topology_of_device(t, makedev(9, 0)), -1);
	assert_int_equal(topology_of_device(t, makedev(259, 9)), -1);
	assert_int_equal(topology_of_device(t, makedev(259, 4)), 1);
	assert_int_equal(topology_of_device(t, makedev(7, 0)), -1);
	assert_int_equal(topology_of_device(t, makedev(0, 42)), -1);   /* tmpfs */
	topology_free(t);
}

static void put_device(const char *address, const char *class, const char *vendor, const char *node)
{
	char name[128];

	snprintf(name, sizeof(name), "bus/pci/devices/%s/class", address);
	put(name, class);
	snprintf(name, sizeof(name), "bus/pci/devices/%s/vendor", address);
	put(name, vendor);
	snprintf(name, sizeof(name), "bus/pci/devices/%s/numa_node", address);
	if (node)
		put(name, node);
}

static void accelerators_are_listed_with_their_nodes(void **state)
{
	char *text = gpus_json(root);

	(void)state;
	assert_string_equal(text, "[]");   /* no PCI at all */
	free(text);
	put_device("0000:b1:00.0", "0x030200\n", "0x10de\n", "1\n");
	put_device("0000:17:00.0", "0x120000\n", "0x1da3\n", "0\n");
	put_device("0000:03:00.0", "0x030000\n", "0x1a03\n", "-1\n");
	put_device("0000:04:00.0", "0x030200\n", "0x1002\n", NULL);
	put_device("0000:17:00.1", "0x040300\n", "0x10de\n", "0\n");   /* its sound */
	put_device("0000:20:00.0", "0x010802\n", "0x144d\n", "0\n");
	put_device("0000:21:00.0", "\n", "\n", "0\n");
	text = gpus_json(root);
	assert_string_equal(text, "[{\"address\": \"0000:03:00.0\", \"vendor\": \"1a03\", \"node\": -1}, "
				  "{\"address\": \"0000:04:00.0\", \"vendor\": \"1002\", \"node\": -1}, "
				  "{\"address\": \"0000:17:00.0\", \"vendor\": \"1da3\", \"node\": 0}, "
				  "{\"address\": \"0000:b1:00.0\", \"vendor\": \"10de\", \"node\": 1}]");
	free(text);
}

/* This very process, on processors that the tree puts at one place each. */
static void a_process_is_found_where_it_runs(void **state)
{
	uint64_t now_ns = clock_ns();
	struct topology *t;
	struct locator *l;
	cpu_set_t before, one;
	uint32_t pid = (uint32_t)getpid();

	(void)state;
	sched_getaffinity(0, sizeof(before), &before);
	if (!CPU_ISSET(0, &before) || !CPU_ISSET(1, &before))
		skip();
	put_machine("0-1\n", "0-1\n", "0-1023\n");
	put_node(0, "0,2-1023", "10 20\n");
	put_node(1, "1", "20 10\n");
	t = read_tree("0-1", "0-1");
	l = locator_new(t);
	assert_non_null(l);
	for (int cpu = 1; cpu >= 0; cpu--) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
		now_ns += 10 * NSEC_PER_SEC;
		assert_int_equal(locator_place(l, pid, now_ns), cpu);
	}
	/* unbound: where it ran last, which is where it was bound until now or where it went since */
	assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
	assert_int_equal(locator_place(l, pid, now_ns), 0);
	assert_in_range(locator_place(l, pid, now_ns + 10 * NSEC_PER_SEC), 0, 1);
	assert_int_equal(locator_place(l, 0, now_ns), -1);
	assert_int_equal(locator_place(l, UINT32_MAX, now_ns), -1);
	locator_free(l);
	topology_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(two_nodes_are_two_places, set_up, tear_down),
		cmocka_unit_test_setup_teardown(memoryless_node_belongs_to_the_nearest_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(memory_without_processors_is_no_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(offline_processors_do_not_count, set_up, tear_down),
		cmocka_unit_test_setup_teardown(our_own_limits_are_kept, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_nodes_it_is_one_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(off_is_one_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(devices_are_found_at_their_controllers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(accelerators_are_listed_with_their_nodes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_process_is_found_where_it_runs, set_up, tear_down),
		cmocka_unit_test(this_machine_has_a_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
