// Reads {tables: {name: "(column: type, ...)"}, queries: {name: text}} and writes, for each query,
// what Kusto's own language service finds wrong with it.
const packages = '@kusto/language-service-next/';
require(packages + 'bridge.min.js');
require(packages + 'Kusto.Language.Bridge.min.js');

const { GlobalState, KustoCode, Symbols } = Kusto.Language;
const { tables, queries } = JSON.parse(require('fs').readFileSync(0, 'utf8'));

const known = Object.entries(tables).map(([name, columns]) =>
  Symbols.TableSymbol.From(columns).WithName(name));
const globals = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.$ctor1('logs', known));

const found = {};
for (const [name, text] of Object.entries(queries)) {
  const diagnostics = KustoCode.ParseAndAnalyze(text, globals).GetDiagnostics();
  found[name] = Array.from({ length: diagnostics.Count }, (_, at) => diagnostics.getItem(at).Message);
}
process.stdout.write(JSON.stringify(found));
