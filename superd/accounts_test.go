package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// As whom programs run.

// someUser is a user without an entry in any database. It is superd's and its
// programs' alone, so that limits on processes of a user are theirs alone.
var someUser = 20_000 + os.Getpid()%4_000

// asUser makes a command run as an ordinary user, of whom the machine knows
// nothing. The path to the test's own program may be closed to that user, and
// so it is executed by way of the open file that it is.
func asUser(t testing.TB, cmd *exec.Cmd, uid int) *exec.Cmd {
	t.Helper()
	needRoot(t)
	cmd.Path = "/proc/self/exe"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd
}

// checkAccount compares a program's own status with whom it should run as: in
// the kernel's four kinds of user and of group.
func checkAccount(t *testing.T, status string, uid, gid int, groups []int) {
	t.Helper()
	four := func(n int) string { return strings.TrimSpace(strings.Repeat(strconv.Itoa(n)+"\t", 4)) }
	if got := field(t, status, "Uid"); got != four(uid) {
		t.Errorf("the user is %q, not %d", got, uid)
	}
	if got := field(t, status, "Gid"); got != four(gid) {
		t.Errorf("the group is %q, not %d", got, gid)
	}
	slices.Sort(groups)
	if got := field(t, status, "Groups"); got != strings.Trim(fmt.Sprint(groups), "[]") {
		t.Errorf("the groups are %q, not %d", got, groups)
	}
}

// groupsOf asks the system for the groups of a user.
func groupsOf(t *testing.T, user string) (list []int) {
	t.Helper()
	for _, word := range strings.Fields(output(t, exec.Command("id", "-G", user))) {
		n, _ := strconv.Atoi(word)
		list = append(list, n)
	}
	return list
}

// idOf is what id(1) says of a user.
func idOf(t *testing.T, option, user string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(output(t, exec.Command("id", option, user))))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAccounts(t *testing.T) {
	needRoot(t)
	t.Parallel()
	nobody, nogroup := idOf(t, "-u", unprivileged), idOf(t, "-g", unprivileged)
	daemon, daemons := idOf(t, "-u", "daemon"), idOf(t, "-g", "daemon")
	for keys, want := range map[string]struct {
		uid, gid int
		groups   []int
	}{
		"":                             {nobody, nogroup, groupsOf(t, unprivileged)},
		"user: daemon":                 {daemon, daemons, groupsOf(t, "daemon")},
		fmt.Sprint("user: ", daemon):   {daemon, daemons, groupsOf(t, "daemon")},
		fmt.Sprint("user: ", someUser): {someUser, someUser, nil},
		"group: 4002":                  {nobody, 4002, groupsOf(t, unprivileged)},
		"group: daemon":                {nobody, daemons, groupsOf(t, unprivileged)},
		"groups: []":                   {nobody, nogroup, nil},
		"groups: [daemon, 4003, 4002]": {nobody, nogroup, []int{daemons, 4002, 4003}},
		"user: daemon, group: 4002, groups: [4003]": {daemon, 4002, []int{4003}},
		"user: root, groups: []":                    {0, 0, nil},
	} {
		t.Run(keys, func(t *testing.T) {
			t.Parallel()
			status := start(t, one("status", strings.TrimSuffix(ownStatus+", "+keys, ", "))).ask("status", "")
			checkAccount(t, status, want.uid, want.gid, want.groups)
			if caps := field(t, status, "CapEff"); (want.uid != 0) != (strings.Trim(caps, "0") == "") {
				t.Errorf("the program has the capabilities %s", caps)
			}
		})
	}
}

func TestRootIsWarnedOf(t *testing.T) {
	needRoot(t)
	t.Parallel()
	d := start(t, one("status", ownStatus+", user: root"))
	d.await(func(r record) bool {
		return r["level"] == "warn" && strings.Contains(r.text("message"), "this program runs as root")
	})
}

// An ordinary user's superd runs programs as that user, whom the system need
// not know.
func TestOrdinaryUserKeepsItself(t *testing.T) {
	t.Parallel()
	d := startCommand(t, asUser(t, prepare(t, `
services:
  status:  {listen: "127.0.0.1:0", run: [/bin/cat, /proc/self/status]}
  named:   {listen: "127.0.0.1:0", run: [/bin/cat, /proc/self/status], user: `+strconv.Itoa(someUser)+`}
  builtin: {listen: "127.0.0.1:0", builtin: echo}
  env:     {listen: "127.0.0.1:0", run: /usr/bin/env, env_style: [none]}
`), someUser))
	for _, service := range []string{"status", "named"} {
		checkAccount(t, d.ask(service, ""), someUser, someUser, nil)
	}
	if got := d.ask("builtin", "x"); got != "x" {
		t.Errorf("the echo of x is %q", got)
	}
	if env := d.ask("env", ""); strings.Contains(env, "HOME=") || strings.Contains(env, "USER=") {
		t.Errorf("of a user that nobody knows the environment says %q", env)
	}
}

// What only root could do is told at the start, all of it.
func TestOrdinaryUserCannotBecomeAnother(t *testing.T) {
	t.Parallel()
	code, _, complaints := finished(t, asUser(t, prepare(t, `
services:
  user:   {listen: "127.0.0.1:0", run: /bin/cat, user: daemon}
  group:  {listen: "127.0.0.1:0", run: /bin/cat, group: daemon}
  groups: {listen: "127.0.0.1:0", run: /bin/cat, groups: []}
  right:  {listen: "127.0.0.1:0", run: /bin/cat}
`), someUser))
	if code != 1 {
		t.Errorf("the exit code is %d", code)
	}
	for _, want := range []string{
		fmt.Sprintf("services.user.user: superd runs as user %d and cannot become daemon", someUser),
		fmt.Sprintf("services.group.group: superd runs as group %d and cannot become daemon", someUser),
		"services.groups.groups: only root can set supplementary groups",
	} {
		if !strings.Contains(complaints, want) {
			t.Errorf("not told: %s; but:\n%s", want, complaints)
		}
	}
	if n := strings.Count(complaints, "services."); n != 3 {
		t.Errorf("3 mistakes are told as %d:\n%s", n, complaints)
	}
}

// finished runs a command that ends by itself and returns its exit code and
// what it wrote.
func finished(t testing.TB, cmd *exec.Cmd) (code int, out, complaints string) {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the command
		cmd.Wait()
		close(ended)
	}()
	await(t, ended, cmd.String()+" does not end")
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}
