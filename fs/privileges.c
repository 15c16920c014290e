/* SPDX-License-Identifier: Apache-2.0 */
/* The raw calls: the kernel's interface is stable, and libcap and libseccomp would be two more libraries for a page of code. */
#include "fs/privileges.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What serving needs, and why. */
static const struct kept_cap {
	unsigned char number;
	const char *name;
} kept[] = {
	{ CAP_DAC_READ_SEARCH, "dac_read_search" },   /* the origin's files are other users'; the kernel decides who reads them through the mount */
	{ CAP_FOWNER, "fowner" },                     /* O_NOATIME on them: reading through the cache changes nothing in the origin */
	{ CAP_SYS_PTRACE, "sys_ptrace" },             /* /proc/PID/exe of readers, to tell jobs apart; ptrace itself is refused below */
	{ CAP_SYS_ADMIN, "sys_admin" },               /* mounting, unmounting, backing files, who opened a file (fanotify) */
};

enum { KEPT = sizeof(kept) / sizeof(*kept) };

static uint64_t kept_mask(void)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < KEPT; i++)
		mask |= UINT64_C(1) << kept[i].number;
	return mask;
}

static int caps_get(uint64_t *ret_permitted)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &head, data))
		return -errno;
	*ret_permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return 0;
}

/* Permitted and effective; none are inheritable. */
static int caps_set(uint64_t caps)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)caps, .permitted = (uint32_t)caps },
		{ .effective = (uint32_t)(caps >> 32), .permitted = (uint32_t)(caps >> 32) },
	};

	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

int privileges_drop(void)
{
	uint64_t permitted, keep = kept_mask();
	int rc = caps_get(&permitted);

	if (rc)
		return rc;
	/* a core file or a debugger would show every user's data; failing is no harm */
	prctl(PR_SET_DUMPABLE, 0);
	if (geteuid() == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	/* of what a program executed by us could get; refused without CAP_SETPCAP, when there is nothing to get either */
	for (unsigned cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++) {
		if (!(keep >> cap & 1))
			prctl(PR_CAPBSET_DROP, cap);
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return caps_set(permitted & keep);
}

/* ---- system calls ---- */

/*
 * Nothing here is called while serving. What could be done with the capabilities that are kept: other programs, other
 * processes, other mounts and namespaces, the kernel itself. A list of what is allowed would break with every
 * version of the C library; this one only has to grow with the kernel's.
 */
static const uint16_t refused[] = {
	SYS_execve, SYS_execveat, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp,
	SYS_mount, SYS_pivot_root, SYS_chroot, SYS_swapon, SYS_swapoff, SYS_quotactl,
	SYS_unshare, SYS_setns, SYS_sethostname, SYS_setdomainname,
	SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_reboot, SYS_bpf, SYS_perf_event_open,
	SYS_userfaultfd, SYS_add_key, SYS_request_key, SYS_keyctl, SYS_acct, SYS_syslog, SYS_personality,
	SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_lookup_dcookie,
	SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid, SYS_setfsgid,
	SYS_mknodat, SYS_fchownat, SYS_fchown, SYS_linkat, SYS_symlinkat,
	SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime,
#ifdef SYS_mknod
	SYS_mknod, SYS_chown, SYS_lchown, SYS_link, SYS_symlink,
#endif
#ifdef SYS_ioperm
	SYS_ioperm, SYS_iopl,
#endif
#ifdef SYS_kexec_file_load
	SYS_kexec_file_load,
#endif
#ifdef SYS_fsopen
	SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick,
#endif
#ifdef SYS_pidfd_getfd
	SYS_pidfd_getfd,
#endif
#ifdef SYS_process_madvise
	SYS_process_madvise,
#endif
#ifdef SYS_mount_setattr
	SYS_mount_setattr,
#endif
};

enum { REFUSED = sizeof(refused) / sizeof(*refused) };

#define X32_CALLS 0x40000000   /* the same calls by other numbers, on x86_64 */

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#define THIS_ARCH 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_INSTRUMENTED 1   /* the leak checker uses ptrace, reports a symbolizer of their own */
#else
#define IS_INSTRUMENTED 0
#endif

static struct sock_filter jump_if(uint32_t value, uint8_t then, uint8_t otherwise)
{
	return (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise);
}

/* Calls of another architecture (32-bit programs' ones have other numbers) end the process: none are made. */
static unsigned short filter_make(struct sock_filter *f)
{
	unsigned short n = 0;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	f[n++] = jump_if(THIS_ARCH, 1, 0);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, REFUSED + 1, 0);
	for (unsigned i = 0; i < REFUSED; i++)
		f[n++] = jump_if(refused[i], (uint8_t)(REFUSED - i), 0);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	return n;
}

int privileges_seal(void)
{
	struct sock_filter filter[REFUSED + 7];
	struct sock_fprog prog = { .filter = filter };

	_Static_assert(REFUSED + 1 < 256, "a jump reaches 255 instructions");
	if (!THIS_ARCH || IS_INSTRUMENTED || geteuid())
		return -ENOTSUP;
	prog.len = filter_make(filter);
	/* for all threads there are; without the slow-down that old kernels take for granted with it */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog))
		return errno == ENOSYS || errno == EINVAL ? -ENOTSUP : -errno;
	return 0;
}

void privileges_describe(char text[PRIVILEGES_TEXT])
{
	uint64_t caps = 0;
	size_t n = 0;

	if (caps_get(&caps))
		caps = UINT64_MAX;
	text[0] = 0;
	for (unsigned i = 0; i < KEPT; i++) {
		if (caps >> kept[i].number & 1)
			n += (size_t)snprintf(text + n, PRIVILEGES_TEXT - n, "%s%s", n ? " " : "", kept[i].name);
	}
	if (caps & ~kept_mask())
		n += (size_t)snprintf(text + n, PRIVILEGES_TEXT - n, "%sothers", n ? " " : "");
	if (!n)
		n = (size_t)snprintf(text, PRIVILEGES_TEXT, "none");
	if (prctl(PR_GET_SECCOMP) > 0)
		snprintf(text + n, PRIVILEGES_TEXT - n, ", sealed");
}
