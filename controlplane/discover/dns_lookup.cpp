// SPDX-License-Identifier: Apache-2.0
#include "controlplane/discover/dns_lookup.hpp"

#include <sys/epoll.h>
#include <sys/time.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace sluice::discover {
namespace {

constexpr int timeout_ms = 2000;  // of the first try of a server
constexpr int tries = 2;
constexpr std::size_t most_targets = 1000;

// ares_library_init() is a must once per process; it is never undone.
void init_library() {
  static const int done = ares_library_init(ARES_LIB_INIT_ALL);
  (void)done;
}

const char* type_text(record_type t) {
  return t == record_type::a ? "A" : t == record_type::aaaa ? "AAAA" : "SRV";
}

}  // namespace

std::vector<found> found_by_srv(const std::vector<srv_record>& services,
                                const std::map<std::string, std::vector<ip_address>>& addresses) {
  std::map<std::uint16_t, bool> weighted;  // by priority: one of its weights is not 0
  for (const srv_record& r : services) weighted[r.priority] |= r.weight != 0;
  std::vector<found> out;
  for (const srv_record& r : services) {
    const auto at = addresses.find(r.target);
    if (at == addresses.end()) continue;
    const auto priority = weighted.find(r.priority);
    const auto tier = std::min<std::ptrdiff_t>(std::distance(weighted.begin(), priority), 255);
    for (const ip_address& address : at->second) {
      found f;
      f.backend.address = address;
      f.backend.port = r.port;
      f.backend.tier = static_cast<std::uint8_t>(tier);
      f.weighted = priority->second;
      if (f.weighted) f.backend.weight = std::max<std::uint16_t>(r.weight, 1);
      out.push_back(f);
    }
  }
  return out;
}

dns_lookup::dns_lookup(event_loop& loop, const question& q, std::function<void(dns_result)> done)
    : loop_{loop}, question_{q}, done_{std::move(done)} {
  init_library();
  ares_options options{};
  options.timeout = timeout_ms;
  options.tries = tries;
  options.sock_state_cb_data = this;
  options.sock_state_cb = [](void* self, ares_socket_t fd, int readable, int writable) {
    static_cast<dns_lookup*>(self)->on_socket(fd, readable != 0, writable != 0);
  };
  int code = ares_init_options(&channel_, &options,
                               ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
  if (code != ARES_SUCCESS) channel_ = nullptr;
  if (code == ARES_SUCCESS && !question_.what.server.empty())
    code = ares_set_servers_ports_csv(channel_, question_.what.server.c_str());
  if (code != ARES_SUCCESS) {
    error_ = std::string{"c-ares: "} + ares_strerror(code);
    finish_soon();
    return;
  }
  if (question_.what.records == model::dns_records::srv)
    ask(question_.what.name, record_type::srv);
  else
    ask_addresses(question_.what.name);
  process(ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

dns_lookup::~dns_lookup() {
  done_ = nullptr;
  // Its queries are ended with an error, its sockets unwatched and closed.
  if (channel_ != nullptr) ares_destroy(channel_);
  loop_.cancel(timer_);
  loop_.cancel(end_timer_);
}

void dns_lookup::ask_addresses(const std::string& name) {
  if (!addresses_.try_emplace(name).second) return;
  if (question_.ipv4) ask(name, record_type::a);
  if (question_.ipv6) ask(name, record_type::aaaa);
}

void dns_lookup::ask(const std::string& name, record_type type) {
  ++outstanding_;
  ares_query(
      channel_, name.c_str(), 1, static_cast<int>(type),
      [](void* arg, int status, int, unsigned char* data, int size) {
        const std::unique_ptr<query> q{static_cast<query*>(arg)};
        if (q->owner->done_)
          q->owner->answered(*q, status, {data, data ? static_cast<std::size_t>(size) : 0});
      },
      new query{this, name, type});
}

void dns_lookup::answered(const query& q, int status, std::span<const std::uint8_t> reply) {
  --outstanding_;
  const auto fail = [&](const std::string& why) {
    if (error_.empty()) error_ = q.name + " " + type_text(q.type) + ": " + why;
  };
  if (status == ARES_ENODATA) {
    // There is such a name; it has no such record.
  } else if (status == ARES_ENOTFOUND) {
    fail("there is no such name (NXDOMAIN)");
  } else if (status != ARES_SUCCESS) {
    fail(ares_strerror(status));
  } else if (auto answer = parse_reply(reply, q.type); !answer) {
    fail(answer.error());
  } else {
    ttl_ = std::min(ttl_, answer->ttl);
    auto& known = addresses_[q.name];
    known.insert(known.end(), answer->addresses.begin(), answer->addresses.end());
    services_.insert(services_.end(), answer->services.begin(), answer->services.end());
    if (services_.size() > most_targets) {
      fail("more than " + std::to_string(most_targets) + " targets");
    } else if (error_.empty()) {
      for (const srv_record& r : answer->services) ask_addresses(r.target);
    }
  }
  if (outstanding_ == 0) finish_soon();
}

void dns_lookup::on_socket(int fd, bool readable, bool writable) {
  if (!readable && !writable) {
    if (watched_.erase(fd) != 0) loop_.remove_fd(fd);
    return;
  }
  const std::uint32_t events = (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u);
  if (!watched_.insert(fd).second) {
    (void)loop_.modify_fd(fd, events);
    return;
  }
  // Without it, the query times out.
  if (loop_.add_fd(fd, events, [this, fd](std::uint32_t happened) {
        const bool in = (happened & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0;
        process(in ? fd : ARES_SOCKET_BAD, (happened & EPOLLOUT) != 0 ? fd : ARES_SOCKET_BAD);
      }))
    watched_.erase(fd);
}

// process() lets c-ares work, and sees to it that it is called again in time.
void dns_lookup::process(int read_fd, int write_fd) {
  ares_process_fd(channel_, read_fd, write_fd);
  loop_.cancel(std::exchange(timer_, 0));
  timeval left{};
  if (ares_timeout(channel_, nullptr, &left) == nullptr) return;
  timer_ = loop_.call_after(
      std::chrono::seconds{left.tv_sec} + std::chrono::microseconds{left.tv_usec}, [this] {
        timer_ = 0;
        process(ARES_SOCKET_BAD, ARES_SOCKET_BAD);
      });
}

// finish_soon(): c-ares may be in the middle of something.
void dns_lookup::finish_soon() {
  if (end_timer_ == 0) end_timer_ = loop_.call_after({}, [this] { finish(); });
}

void dns_lookup::finish() {
  end_timer_ = 0;
  // Without any record, nothing says for how long that holds.
  dns_result out{{}, ttl_ == 0xffffffff ? 0 : ttl_};
  if (!error_.empty()) {
    out.answer = tl::unexpected{error_};
  } else if (question_.what.records == model::dns_records::srv) {
    out.answer = found_by_srv(services_, addresses_);
  } else {
    std::vector<found> all;
    for (const ip_address& a : addresses_[question_.what.name]) {
      all.emplace_back();
      all.back().backend.address = a;
    }
    out.answer = std::move(all);
  }
  // done() may destroy this.
  const auto done = std::exchange(done_, nullptr);
  done(std::move(out));
}

}  // namespace sluice::discover
