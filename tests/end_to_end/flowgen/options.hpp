// SPDX-License-Identifier: Apache-2.0
// What flowgen is asked to do.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <string>

namespace sluice::flowgen {

enum class mode : std::uint8_t {
  http,  // GET; the backend names itself in the header X-Backend
  tcp,   // lines: "N\n" is answered with "BACKEND N\n" (flowgen serve)
  udp    // the same in datagrams
};

struct endpoint {
  sockaddr_storage address{};
  socklen_t size{};
  std::string text;
};

struct client_options {
  mode protocol{mode::http};
  endpoint target;
  std::string source;           // the local address; empty: the kernel chooses
  std::uint16_t local_port{0};  // of the first connection, the next has the next; 0: any
  std::string path{"/"};
  unsigned connections{1};
  double rate{0};                           // requests per second in all; 0: as fast as answered
  std::uint64_t requests{0};                // in all; 0: no limit
  double duration{0};                       // seconds; 0: no limit (until SIGTERM)
  unsigned requests_per_connection{0};      // then the connection is closed; 0: never
  std::chrono::milliseconds timeout{2000};  // of a request, its connection included
  unsigned downloads{0};                    // connections that GET download_path, once each
  std::string download_path{"/big"};
  std::chrono::seconds download_timeout{120};
  std::string log;  // a line per request into this file
};

}  // namespace sluice::flowgen
