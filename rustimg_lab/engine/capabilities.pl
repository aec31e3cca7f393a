# What engine/capabilities.py runs in a container: one of three trials, by its name. Needs perl-base, and ends by itself.
use strict;
use IO::Socket::INET;

$| = 1;
# Process 1 has no default action for a signal: without a handler, neither TERM nor ALRM would end it.
$SIG{TERM} = $SIG{ALRM} = sub { exit };
alarm 60;
my ($trial, @arguments) = @ARGV;

sub lines { open my $file, "<", $_[0] or return; <$file> }

if ($trial eq "cpu") {    # PORT TOKEN: sends the token to the lab; uses one second of CPU time, and reports it
    my $lab = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $arguments[0], Timeout => 2);
    if ($lab) { print $lab $arguments[1]; close $lab }
    print "boot_id ", lines("/proc/sys/kernel/random/boot_id");
    print grep /^Cpus_allowed_list/, lines("/proc/self/status");
    my $used = 0;
    while ($used < 1) {
        for (1 .. 10000) { $_ * $_ }
        my ($user, $system) = times;
        $used = $user + $system;
    }
    print "used_s $used\ndone 1\n";
    sleep 60;
} elsif ($trial eq "memory") {    # BYTES: takes that much memory
    my @files = map "/sys/fs/cgroup/$_", "memory.swap.max", "memory/memory.memsw.limit_in_bytes";    # cgroup v2, v1
    print "swap_limit $_" for map lines($_), @files;
    print "begun 1\n";
    my $held = "x" x $arguments[0];
    print "allocated 1\n";
} elsif ($trial eq "port") {    # TOKEN: answers each connection with the token
    my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 8) or die "no port: $!\n";
    print "listening 1\n";
    while (1) {
        my $lab = $server->accept or next;
        print $lab $arguments[0];
        close $lab;
    }
}
