// SPDX-License-Identifier: Apache-2.0
// What health checks cost: N targets on 127.0.0.0/8, each checked once a second for some seconds by
// one thread, the share of a core that this thread takes, how long answers take, and how late what
// else that thread has to do at its time (publishing above all) is because of the checks. The
// servers are on a thread of their own. By hand:
//   health_load tcp|http|https|https-verified|http2|grpc|udp|dns|icmp [TARGETS [SECONDS]]
// TLS: version 1.3, certificates with P-256, as is usual; each check is a whole handshake.
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "controlplane/health/health_checker.hpp"
#include "controlplane/health/socket_address.hpp"

namespace {

using namespace sluice;
using namespace std::chrono_literals;
using clock_type = event_loop::clock;

double cpu_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

constexpr const char* host_name = "backend.example.net";

// A certificate that vouches for itself, as a server has it and as a check reads it.
class identity {
 public:
  identity()
      : key_{EVP_EC_gen("P-256")},
        certificate_{X509_new()},
        server_{SSL_CTX_new(TLS_server_method())} {
    X509_set_version(certificate_, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate_), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate_), 86400);
    X509_set_pubkey(certificate_, key_);
    X509_NAME* name = X509_get_subject_name(certificate_);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(host_name), -1, -1, 0);
    X509_set_issuer_name(certificate_, name);
    X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name,
                                                (std::string{"DNS:"} + host_name).c_str());
    X509_add_ext(certificate_, names, -1);
    X509_EXTENSION_free(names);
    if (X509_sign(certificate_, key_, EVP_sha256()) == 0 ||
        SSL_CTX_use_certificate(server_, certificate_) != 1 ||
        SSL_CTX_use_PrivateKey(server_, key_) != 1)
      std::abort();
    file = "/tmp/health_load-XXXXXX";
    FILE* const out = ::fdopen(::mkstemp(file.data()), "w");
    if (out == nullptr || PEM_write_X509(out, certificate_) != 1) std::abort();
    std::fclose(out);
  }
  identity(const identity&) = delete;
  identity& operator=(const identity&) = delete;
  ~identity() { ::unlink(file.c_str()); }

  std::string file;
  // The server's threads outlive it: nothing is freed before the end of the process.
  [[nodiscard]] SSL_CTX* server() const noexcept { return server_; }

 private:
  EVP_PKEY* key_;
  X509* certificate_;
  SSL_CTX* server_;
};

// What a server of HTTP/2 says, whatever it is asked: its settings, that it has seen the client's,
// and on stream 1 status 200; for grpc a message that says SERVING, and that this is all.
using namespace std::string_view_literals;
constexpr auto http2_settings = "\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0"sv;
constexpr auto http2_answer = "\0\0\1\1\5\0\0\0\1\x88"sv;
constexpr auto grpc_answer =
    "\0\0\x20\1\4\0\0\0\1\x88\0\x0c"
    "content-type\x10"
    "application/grpc"
    "\0\0\7\0\0\0\0\0\1\0\0\0\0\2\x08\1"
    "\0\0\x0f\1\5\0\0\0\1\0\x0b"
    "grpc-status\1"
    "0"sv;

// A server of the kind, on any address; answers until the end.
class server {
 public:
  // tls: for https.
  server(model::health_kind kind, SSL_CTX* tls) : kind_{kind}, tls_{tls} {
    const bool stream = model::streams(kind);
    fd_ = ::socket(AF_INET, stream ? SOCK_STREAM : SOCK_DGRAM, 0);
    const int room = 8 << 20;
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    health::socket_address name = health::to_sockaddr(ip_address::v4({0, 0, 0, 0}), 0, 0);
    if (::bind(fd_, reinterpret_cast<const sockaddr*>(&name.storage), name.length) != 0 ||
        (stream && ::listen(fd_, 4096) != 0))
      std::abort();
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&name.storage), &name.length);
    sockaddr_in in{};
    std::memcpy(&in, &name.storage, sizeof in);
    port = ntohs(in.sin_port);
    if (kind == model::health_kind::icmp) return;
    for (int i = 0; i < (stream ? 4 : 1); ++i) std::thread{[this] { serve(); }}.detach();
  }
  std::uint16_t port{};

 private:
  void serve() const {
    static constexpr std::string_view answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    std::array<char, 4096> buffer;
    while (true) {
      if (model::streams(kind_)) {
        const int fd = ::accept(fd_, nullptr, nullptr);
        if (kind_ == model::health_kind::http && ::recv(fd, buffer.data(), buffer.size(), 0) > 0)
          ::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
        if (kind_ == model::health_kind::https) serve_tls(fd, answer);
        if (kind_ == model::health_kind::http2) serve_http2(fd, http2_answer);
        if (kind_ == model::health_kind::grpc) serve_http2(fd, grpc_answer);
        ::close(fd);
        continue;
      }
      sockaddr_storage from{};
      socklen_t length = sizeof from;
      const ssize_t n = ::recvfrom(fd_, buffer.data(), buffer.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &length);
      if (n < 4) continue;
      buffer[2] = static_cast<char>(0x81);  // dns: a reply
      ::sendto(fd_, buffer.data(), static_cast<std::size_t>(n), 0,
               reinterpret_cast<const sockaddr*>(&from), length);
    }
  }

  void serve_tls(int fd, std::string_view answer) const {
    std::array<char, 4096> buffer;
    SSL* const ssl = SSL_new(tls_);
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1 && SSL_read(ssl, buffer.data(), buffer.size()) > 0)
      SSL_write(ssl, answer.data(), static_cast<int>(answer.size()));
    SSL_free(ssl);
  }

  // serve_http2() waits for the client to end: what it has not read yet would be a reset to it.
  static void serve_http2(int fd, std::string_view answer) {
    std::array<char, 4096> buffer;
    const std::string all = std::string{http2_settings} + std::string{answer};
    if (::recv(fd, buffer.data(), buffer.size(), 0) <= 0) return;
    ::send(fd, all.data(), all.size(), MSG_NOSIGNAL);
    while (::recv(fd, buffer.data(), buffer.size(), 0) > 0) continue;
  }

  model::health_kind kind_;
  SSL_CTX* tls_;
  int fd_{-1};
};

// pacer is a timer of the loop's every 5 ms, and knows how late each was.
class pacer {
 public:
  explicit pacer(event_loop& loop) : loop_{loop} { next(); }
  pacer(const pacer&) = delete;
  pacer& operator=(const pacer&) = delete;
  ~pacer() { loop_.cancel(timer_); }

  // late() are milliseconds, at so many parts of all.
  double late(double part) {
    std::sort(late_.begin(), late_.end());
    return late_[static_cast<std::size_t>(part * static_cast<double>(late_.size() - 1))];
  }
  void begin() { late_.clear(); }

 private:
  void next() {
    const auto due = event_loop::now() + 5ms;
    timer_ = loop_.call_at(due, [this, due] {
      late_.push_back(std::chrono::duration<double, std::milli>(event_loop::now() - due).count());
      next();
    });
  }
  event_loop& loop_;
  event_loop::timer_id timer_{};
  std::vector<double> late_;
};

int run(model::health_kind kind, const std::string& name, int count, int seconds) {
  const identity who;
  const server answers{kind, who.server()};
  std::vector<health::wanted_target> targets;
  for (int i = 0; i < count; ++i) {
    health::target t;
    // A datagram server on any address answers from the first: there targets differ otherwise.
    t.address =
        kind == model::health_kind::udp || kind == model::health_kind::dns
            ? ip_address::v4({127, 0, 0, 1})
            : ip_address::v4({127, static_cast<std::uint8_t>(8 + (i >> 16)),
                              static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)});
    t.check.kind = kind;
    t.check.interval = 1s;
    t.check.timeout = 900ms;
    t.check.send = "ping " + std::to_string(i);
    t.check.name = "n" + std::to_string(i) + ".example.net";
    t.check.verify = name == "https-verified";
    t.check.ca_file = who.file;
    t.check.sni = host_name;
    t.check = model::without_unused(t.check);
    t.port = kind == model::health_kind::icmp ? std::uint16_t{0} : answers.port;
    targets.push_back({t, health::health_state::unknown});
  }
  event_loop loop;
  health::health_checker checker{loop, [](const auto&, const auto&) {}};
  checker.set_targets(targets);
  pacer other_work{loop};
  loop.run_for(2s);  // the first round, and the move to each one's place
  other_work.begin();
  const auto before = checker.counters();
  const double cpu_before = cpu_seconds();
  const auto begin = clock_type::now();
  loop.run_for(std::chrono::seconds{seconds});
  const double cpu = cpu_seconds() - cpu_before;
  const double took = std::chrono::duration<double>(clock_type::now() - begin).count();
  const auto after = checker.counters();
  std::vector<double> latencies;
  for (const auto& s : checker.snapshot())
    latencies.push_back(std::chrono::duration<double, std::milli>(s.latency).count());
  std::sort(latencies.begin(), latencies.end());
  const double checks = static_cast<double>(after.started - before.started);
  std::printf(
      "%s: %d targets, %.1f s: %.0f checks a second, %llu failed; %.0f%% of a core, %.1f us per "
      "check; answered after %.2f ms in the median, %.2f ms at 99%%; other work of the thread is "
      "late "
      "by %.2f ms in the median, %.2f at 99%%, %.2f at most\n",
      name.c_str(), count, took, checks / took,
      static_cast<unsigned long long>(after.failed - before.failed), 100 * cpu / took,
      1e6 * cpu / checks, latencies[latencies.size() / 2], latencies[latencies.size() * 99 / 100],
      other_work.late(0.5), other_work.late(0.99), other_work.late(1));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to connections that are gone
  const std::string name = argc > 1 ? argv[1] : "";
  const int count = argc > 2 ? std::atoi(argv[2]) : 10000;
  const int seconds = argc > 3 ? std::atoi(argv[3]) : 10;
  using model::health_kind;
  if (count > 0 && seconds > 0)
    for (const auto& [word, kind] :
         {std::pair{"tcp", health_kind::tcp}, std::pair{"http", health_kind::http},
          std::pair{"https", health_kind::https}, std::pair{"https-verified", health_kind::https},
          std::pair{"http2", health_kind::http2}, std::pair{"grpc", health_kind::grpc},
          std::pair{"udp", health_kind::udp}, std::pair{"dns", health_kind::dns},
          std::pair{"icmp", health_kind::icmp}})
      if (name == word) return run(kind, word, count, seconds);
  std::fputs(
      "usage: health_load tcp|http|https|https-verified|http2|grpc|udp|dns|icmp [TARGETS "
      "[SECONDS]]\n",
      stderr);
  return 2;
}
