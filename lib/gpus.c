/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/gpus.h"
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/strbuf.h"

/* Base class and subclass of PCI. */
enum { CLASS_VGA = 0x0300, CLASS_3D = 0x0302, CLASS_ACCELERATOR = 0x1200 };

/* The number in a device's file, in C's notation; @without if it is not there. */
static long number_of(const char *devices, const char *address, const char *file, long without)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX], text[32] = "", *end;
	long number;

	if (snprintf(path, sizeof(path), "%s/%s/%s", devices, address, file) >= (int)sizeof(path))
		return without;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return without;
	number = strtol(text, &end, 0);
	return end == text ? without : number;
}

static bool is_gpu(const char *devices, const char *address)
{
	long class = number_of(devices, address, "class", 0) >> 8;

	return class == CLASS_VGA || class == CLASS_3D || class == CLASS_ACCELERATOR;
}

char *gpus_json(const char *sysfs)
{
	struct strbuf b = STRBUF_INIT;
	struct dirent **device = NULL;
	char devices[PATH_MAX];
	unsigned gpus = 0;
	int count;

	snprintf(devices, sizeof(devices), "%s/bus/pci/devices", sysfs ? sysfs : "/sys");
	count = scandir(devices, &device, NULL, alphasort);
	strbuf_add(&b, "[");
	for (int i = 0; i < count; i++) {
		const char *address = device[i]->d_name;

		if (*address != '.' && gpus < GPUS_MAX && is_gpu(devices, address)) {
			strbuf_add(&b, gpus++ ? ", {\"address\": " : "{\"address\": ");
			strbuf_add_json(&b, address);
			strbuf_addf(&b, ", \"vendor\": \"%04lx\", \"node\": %ld}", number_of(devices, address, "vendor", 0),
				    number_of(devices, address, "numa_node", -1));
		}
		free(device[i]);
	}
	free(device);
	strbuf_add(&b, "]");
	return strbuf_steal(&b);
}
