import { defineConfig } from 'vite';

// The page is served by the mulgil binary under `default-src 'self'`: nothing may be inlined as a data: URL or an inline script.
export default defineConfig({
  base: '/',
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: {
      '/api': { target: process.env['MULGIL'] ?? 'http://127.0.0.1:8080', ws: true },
      '/health': { target: process.env['MULGIL'] ?? 'http://127.0.0.1:8080' },
    },
  },
  test: { include: ['src/**/*.test.ts'] },
});
